//! What requests ask for, key names, records and answers, as tables.

use super::kms::Names;
use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use md5::{Digest as _, Md5};
use proptest::prelude::*;

const C_ALGORITHM: &str = "x-amz-server-side-encryption-customer-algorithm";
const C_KEY: &str = "x-amz-server-side-encryption-customer-key";
const C_MD5: &str = "x-amz-server-side-encryption-customer-key-md5";
const NONE: &[String] = &[];

fn headers<V: AsRef<str>>(pairs: &[(&str, V)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("name");
        headers.insert(name, HeaderValue::from_str(value.as_ref()).expect("value"));
    }
    headers
}

fn names() -> Names<'static> {
    Names { region: "us-east-1", regions_also: NONE, declared: NONE }
}

fn project() -> ProjectId {
    ProjectId::from_bytes([0xab; 16])
}

fn key_pairs(key: &[u8]) -> Vec<(&'static str, String)> {
    let md5 = BASE64.encode(Md5::digest(key));
    vec![(C_ALGORITHM, "AES256".to_owned()), (C_KEY, BASE64.encode(key)), (C_MD5, md5)]
}

fn customer(key: &[u8], wanted_for: Use) -> Result<Option<Customer>, S3Code> {
    Customer::read(&headers(&key_pairs(key)), KeyHeaders::Object, wanted_for, true).map_err(|error| error.code())
}

#[test]
fn a_customers_key_comes_whole_or_is_refused_as_aws_does() {
    let good = key_pairs(&[7; 32]);
    let without = |skip: &[usize]| -> Vec<(&str, String)> {
        let kept = good.iter().enumerate().filter(|(index, _)| !skip.contains(index));
        kept.map(|(_, pair)| pair.clone()).collect()
    };
    let with = |index: usize, value: &str| {
        let mut pairs = good.clone();
        pairs[index].1 = value.to_owned();
        pairs
    };
    let also = |name: &'static str, value: &str| [good.clone(), vec![(name, value.to_owned())]].concat();
    let (short, other_md5) = (key_pairs(&[7; 16]), BASE64.encode([1; 16]));
    let (argument, algorithm) = (S3Code::InvalidArgument, S3Code::InvalidEncryptionAlgorithmError);
    for (pairs, on_write, on_read, message) in [
        (without(&[1, 2]), argument, Some(argument), "an appropriate secret key"),
        (without(&[0, 2]), argument, Some(argument), "a valid encryption algorithm"),
        (without(&[0, 1]), argument, Some(argument), "a valid encryption algorithm"),
        (without(&[0]), argument, Some(argument), "a valid encryption algorithm"),
        (without(&[1]), argument, Some(argument), "an appropriate secret key"),
        (without(&[2]), argument, None, "the client calculated MD5"),
        (with(0, "AES128"), algorithm, Some(algorithm), "Supported value: AES256."),
        (with(1, "not base64!!"), argument, Some(argument), "The secret key was invalid"),
        (with(1, ""), argument, Some(argument), "did not match the hash"),
        (with(1, &"A".repeat(4000)), argument, Some(argument), "The secret key was invalid"),
        (with(2, &other_md5), argument, Some(argument), "did not match the hash"),
        (with(2, "not base64!!"), argument, Some(argument), "did not match the hash"),
        (short, argument, Some(S3Code::AccessDenied), "secret key"),
        (also("x-amz-server-side-encryption", "AES256"), argument, None, "is incompatible with the encryption method"),
        (also("x-amz-server-side-encryption", "aws:kms"), argument, None, "is incompatible with the encryption method"),
    ] {
        let given = headers(&pairs);
        let error = Asked::of_write(&given, true).err().unwrap_or_else(|| panic!("{pairs:?}"));
        assert_eq!(error.code(), on_write, "{pairs:?}");
        assert!(error.message().contains(message), "{pairs:?}: {}", error.message());
        let read = Customer::read(&given, KeyHeaders::Object, Use::Read, true);
        assert_eq!(read.err().map(|error| error.code()), on_read, "{pairs:?}");
        let secret = BASE64.encode([7; 32]);
        assert!(!format!("{error:?}").contains(&secret[..20]), "an error must not hold the key");
    }
    assert!(matches!(Asked::of_write(&headers(&good), true), Ok(Asked::Customer(_))));
    let open = Asked::of_write(&headers(&good), false).err().expect("refused");
    assert_eq!(open.code(), S3Code::InvalidRequest);
    assert!(open.message().contains("secure connection"));
    let source = headers(&good);
    assert!(matches!(Customer::read(&source, KeyHeaders::CopySource, Use::Read, true), Ok(None)));
}

#[test]
fn methods_and_their_headers_fit_together_or_are_refused() {
    let (method, id) = ("x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id");
    let (context, bucket_key) =
        ("x-amz-server-side-encryption-context", "x-amz-server-side-encryption-bucket-key-enabled");
    let json = BASE64.encode(r#"{"purpose":"study"}"#);
    let code = |pairs: &[(&str, &str)]| Asked::of_write(&headers(pairs), true).err().map(|error| error.code());
    for (pairs, expected) in [
        (vec![], None),
        (vec![(method, "AES256")], None),
        (vec![(method, "aws:kms")], None),
        (vec![(method, "aws:kms"), (id, "alias/project"), (context, &json), (bucket_key, "true")], None),
        (vec![(bucket_key, "false")], None),
        (vec![(method, "aws:kms:dsse")], Some(S3Code::NotImplemented)),
        (vec![(method, "aes256")], Some(S3Code::InvalidArgument)),
        (vec![(method, "")], Some(S3Code::InvalidArgument)),
        (vec![(id, "k")], Some(S3Code::InvalidArgument)),
        (vec![(method, "AES256"), (id, "k")], Some(S3Code::InvalidArgument)),
        (vec![(method, "AES256"), (context, &json)], Some(S3Code::InvalidArgument)),
        (vec![(method, "aws:kms"), (bucket_key, "yes")], Some(S3Code::InvalidArgument)),
        (vec![(method, "aws:kms"), (context, "no base64")], Some(S3Code::InvalidArgument)),
        (vec![(method, "aws:kms"), (context, "WzFd")], Some(S3Code::InvalidArgument)),
    ] {
        assert_eq!(code(&pairs), expected, "{pairs:?}");
    }
}

#[test]
fn the_projects_key_has_its_names_and_no_other_key_has_one() {
    let (hex, also) = ("ab".repeat(16), ["eu-north-1".to_owned()]);
    let declared = ["testkey-1".to_owned()];
    let names = Names { region: "us-east-1", regions_also: &also, declared: &declared };
    assert_eq!(kms::find_key("testkey-1", &names, project()).expect("key"), Some("testkey-1".to_owned()));
    let uuid = "abababab-abab-abab-abab-abababababab";
    for id in [
        hex.as_str(),
        uuid,
        "alias/project",
        "alias/aws/s3",
        &kms::key_arn("us-east-1", project()),
        &format!("arn:aws:kms:eu-north-1:{hex}:key/{uuid}"),
        &format!("arn:aws:kms:us-east-1:{hex}:alias/project"),
    ] {
        assert_eq!(kms::find_key(id, &names, project()).expect(id), None);
    }
    let other = "cd".repeat(16);
    for (id, message) in [
        (other.as_str(), format!("Key 'arn:aws:kms:us-east-1:{hex}:key/{other}' does not exist")),
        ("alias/mine", format!("Alias arn:aws:kms:us-east-1:{hex}:alias/mine is not found.")),
        ("aws/s3", format!("Key 'arn:aws:kms:us-east-1:{hex}:key/aws/s3' does not exist")),
        (
            &kms::key_arn("us-west-2", project()),
            format!("Key '{}' does not exist", kms::key_arn("us-west-2", project())),
        ),
        (&format!("arn:aws:kms:us-east-1:{other}:key/{hex}"), "does not exist".to_owned()),
        (&format!("arn:aws:kms:us-east-1:{hex}:key/"), "does not exist".to_owned()),
        ("arn:aws:kms", "does not exist".to_owned()),
        ("", "does not exist".to_owned()),
    ] {
        let error = kms::find_key(id, &names, project()).expect_err(id);
        assert_eq!((error.code().as_str(), error.status().as_u16()), ("KMS.NotFoundException", 400));
        assert!(error.message().contains(&message), "{}", error.message());
    }
}

#[test]
fn a_key_opens_what_it_sealed_and_its_absence_is_told_apart_from_a_wrong_one() {
    let (key, other) = (|| customer(&[7; 32], Use::Read).expect("key"), || customer(&[8; 32], Use::Read).expect("key"));
    let sealed = Asked::Customer(key().expect("key")).sealing(&names(), project()).expect("sealing");
    let sealed = || sealed.encryption.clone();
    let kms = || Encryption::Kms { has_bucket_key: false, context: None, key_name: None };
    let denied = Some(S3Code::AccessDenied);
    let invalid = Some(S3Code::InvalidRequest);
    for (record, given, opened, continued) in [
        (sealed(), key(), None, None),
        (sealed(), other(), denied, invalid),
        (sealed(), None, invalid, invalid),
        (Encryption::Managed, None, None, None),
        (Encryption::Managed, key(), invalid, invalid),
        (kms(), None, None, None),
        (kms(), key(), invalid, invalid),
    ] {
        let case = format!("{record:?}, key: {}", given.is_some());
        let open = record.clone().opened_by(project(), given.clone()).err().map(|error| error.code());
        assert_eq!(open, opened, "{case}");
        let part = record.continued_by(project(), given).err().map(|error| error.code());
        assert_eq!(part, continued, "{case}");
    }
    let elsewhere = sealed().opened_by(ProjectId::random(), key()).err().map(|error| error.code());
    assert_eq!(elsewhere, denied);
}

#[test]
fn answers_tell_what_holds_and_never_a_key() {
    let told = |asked: Asked, answer| {
        let mut headers = HeaderMap::new();
        asked.sealing(&names(), project()).expect("sealing").add_headers(&mut headers, "us-east-1", answer);
        let pair = |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}", value.to_str().expect("text"));
        let mut told: Vec<_> = headers.iter().map(pair).collect();
        told.sort();
        told
    };
    assert_eq!(told(Asked::Managed, AnswerTo::Read), ["x-amz-server-side-encryption: AES256"]);
    let kms = || Asked::Kms { key_id: None, has_bucket_key: Some(true), context: Some("e30=".to_owned()) };
    let arn = kms::key_arn("us-east-1", project());
    let expected = [
        "x-amz-server-side-encryption-aws-kms-key-id: ".to_owned() + &arn,
        "x-amz-server-side-encryption-bucket-key-enabled: true".to_owned(),
        "x-amz-server-side-encryption-context: e30=".to_owned(),
        "x-amz-server-side-encryption: aws:kms".to_owned(),
    ];
    assert_eq!(told(kms(), AnswerTo::Write), expected);
    assert_eq!(told(kms(), AnswerTo::Read), [&expected[0], &expected[1], &expected[3]].map(Clone::clone));
    let customer = customer(&[7; 32], Use::Write).expect("key").expect("key");
    let md5 = BASE64.encode(Md5::digest([7; 32]));
    assert_eq!(
        told(Asked::Customer(customer), AnswerTo::Write),
        [format!("{C_ALGORITHM}: AES256"), format!("{C_MD5}: {md5}")]
    );
}

#[test]
fn an_etag_is_no_md5_where_the_bytes_are_the_customers_secret() {
    let customer = customer(&[7; 32], Use::Write).expect("key").expect("key");
    let sealing = Asked::Customer(customer).sealing(&names(), project()).expect("sealing");
    assert_ne!(sealing.etag([5; 16]).expect("etag"), [5; 16]);
    assert_ne!(sealing.etag([5; 16]).expect("etag"), sealing.etag([5; 16]).expect("etag"));
    let managed = Asked::Managed.sealing(&names(), project()).expect("sealing");
    assert_eq!(managed.etag([5; 16]).expect("etag"), [5; 16]);
}

/// Bytes at rest: never to be made anew.
#[test]
fn golden_records_are_read() {
    assert_eq!(Encryption::read(&[]).expect("record"), Encryption::Managed);
    let kms = hex::decode(
        "8301f56465333" /* [1, true, "e30="] */
            .to_owned()
            + "03d",
    )
    .expect("hex");
    let expected = Encryption::Kms { has_bucket_key: true, context: Some("e30=".to_owned()), key_name: None };
    assert_eq!(Encryption::read(&kms).expect("record"), expected);
    let mut customer = hex::decode("8502f6f650").expect("hex");
    customer.extend([1; 16]);
    customer.extend([0x58, 0x20]);
    customer.extend([2; 32]);
    let expected = Encryption::Customer(CustomerKeyCheck { salt: [1; 16], digest: [2; 32] });
    assert_eq!(Encryption::read(&customer).expect("record"), expected);
    // A newer field is skipped, a newer method is not taken for another.
    let mut newer = customer.clone();
    newer[0] = 0x87;
    newer.extend([0xf6, 0x07]);
    assert_eq!(Encryption::read(&newer).expect("record"), expected);
    newer[1] = 9;
    assert!(Encryption::read(&newer).is_err());
    assert!(Encryption::read(&customer[..20]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn records_come_back_as_they_were(has_bucket_key: bool, context in prop::option::of("[a-zA-Z0-9+/=]{0,40}"), key_name in prop::option::of(".{0,20}"), salt: [u8; 16], digest: [u8; 32]) {
        for encryption in [
            Encryption::Managed,
            Encryption::Kms { has_bucket_key, context, key_name },
            Encryption::Customer(CustomerKeyCheck { salt, digest }),
        ] {
            prop_assert_eq!(Encryption::read(&encryption.to_record().expect("record")).expect("record"), encryption);
        }
    }

    #[test]
    fn any_bytes_are_a_record_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = Encryption::read(&bytes);
        let _ = kms::check_context(&bytes);
        let _ = kms::find_key(&String::from_utf8_lossy(&bytes), &names(), project());
    }

    #[test]
    fn any_headers_are_a_key_or_a_refusal(
        method in prop::option::of("[ -~]{0,12}"),
        algorithm in prop::option::of("AES256|[ -~]{0,8}"),
        key in prop::option::of("[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=|[ -~]{0,60}"),
        md5 in prop::option::of("[A-Za-z0-9+/]{21}[AQgw]==|[ -~]{0,30}"),
    ) {
        let given = [("x-amz-server-side-encryption", method), (C_ALGORITHM, algorithm), (C_KEY, key), (C_MD5, md5)];
        let pairs: Vec<_> = given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let asked = Asked::of_write(&headers(&pairs), true);
        // The MD5 of random text fits no key, so no write gets through with any of the three headers.
        let has_key_header = pairs.iter().any(|(name, _)| name.contains("customer"));
        prop_assert!(!(has_key_header && asked.is_ok()));
        let _ = Customer::read(&headers(&pairs), KeyHeaders::Object, Use::Read, true);
    }
}
