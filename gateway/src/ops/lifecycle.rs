//! Lifecycle configurations of buckets: reading, checking and writing the document. Metadata carries the rules out.
//!
//! Objects have one storage class here, STANDARD, so a rule that moves them to another is refused as a PUT into another
//! is: InvalidStorageClass.

use super::context::{BodyDigest, Context};
use super::headers::text;
use super::tagging::{bucket_document, update_bucket};
use super::{Answer, no_content, status, xml};
use crate::access::Action;
use crate::error::{S3Code, S3Error};
use crate::http_date;
use crate::payload::Payload;
use crate::xml::{Element, Namespace, Writer};
use http::{HeaderMap, HeaderValue, StatusCode};
use valv_lifecycle::{
    Configuration, Expiration, Filter, FilterForm, MinimumSize, NoncurrentExpiration, Rule, RuleError, Scope,
    SizeBounds, Status,
};
use valv_metadata_api::{BucketChange, BucketDocument, BucketDocumentKind};

/// Longest document: 1,000 rules with ids, prefixes and a tag or two come to about 1 MiB.
const LIFECYCLE_LEN_BYTES_MAX: usize = 2 << 20;
/// Longest configuration at rest: what metadata takes as a bucket's document.
const STORED_LEN_BYTES_MAX: usize = 512 * 1024;
/// Names the setting for transitions of small objects, which nothing here acts on.
const MINIMUM_SIZE_HEADER: &str = "x-amz-transition-default-minimum-object-size";

/// GET `?lifecycle`.
pub(crate) async fn get(cx: &Context) -> Answer {
    let bucket = cx.bucket(Action::GetLifecycleConfiguration).await?;
    let body = bucket_document(cx, &bucket, BucketDocumentKind::Lifecycle).await?;
    let configuration = Configuration::decode(&body).map_err(S3Error::internal)?;
    let mut response = xml(write(&configuration));
    add_minimum_size(response.headers_mut(), configuration.minimum_size());
    Ok(response)
}

/// PUT `?lifecycle`.
pub(crate) async fn put(cx: &Context, mut payload: Payload) -> Answer {
    let bucket = cx.bucket(Action::PutLifecycleConfiguration).await?;
    let minimum_size = read_minimum_size(&cx.headers)?;
    let document =
        cx.xml_body(&mut payload, "LifecycleConfiguration", LIFECYCLE_LEN_BYTES_MAX, BodyDigest::Required).await?;
    let configuration = read(&document, minimum_size)?;
    let body = configuration.encode();
    if body.len() > STORED_LEN_BYTES_MAX {
        return Err(S3Error::invalid_request("The lifecycle configuration is too long"));
    }
    let document = BucketDocument { kind: BucketDocumentKind::Lifecycle, body };
    update_bucket(cx, &bucket, BucketChange::SetDocument(document)).await?;
    let mut response = status(StatusCode::OK);
    add_minimum_size(response.headers_mut(), minimum_size);
    Ok(response)
}

/// DELETE `?lifecycle`.
pub(crate) async fn delete(cx: &Context) -> Answer {
    let bucket = cx.bucket(Action::PutLifecycleConfiguration).await?;
    update_bucket(cx, &bucket, BucketChange::RemoveDocument(BucketDocumentKind::Lifecycle)).await?;
    Ok(no_content())
}

const fn minimum_size_text(minimum_size: MinimumSize) -> &'static str {
    match minimum_size {
        MinimumSize::AllClasses => "all_storage_classes_128K",
        MinimumSize::ByClass => "varies_by_storage_class",
    }
}

fn read_minimum_size(headers: &HeaderMap) -> Result<MinimumSize, S3Error> {
    let Some(given) = text(headers, MINIMUM_SIZE_HEADER) else { return Ok(MinimumSize::default()) };
    let known = [MinimumSize::AllClasses, MinimumSize::ByClass];
    known
        .into_iter()
        .find(|&known| minimum_size_text(known) == given)
        .ok_or_else(|| S3Error::invalid_request(format!("Invalid TransitionDefaultMinimumObjectSize found: {given}")))
}

fn add_minimum_size(headers: &mut HeaderMap, minimum_size: MinimumSize) {
    headers.insert(MINIMUM_SIZE_HEADER, HeaderValue::from_static(minimum_size_text(minimum_size)));
}

fn refused(error: RuleError) -> S3Error {
    use RuleError::*;
    let code = match &error {
        NoRules
        | TooManyRules
        | PrefixAmongFilters
        | FilterAmongPrefixes
        | NewerWithoutFilter
        | OverlappingPrefixes(..)
        | PrefixTooLong
        | TagTwice
        | LargerThanRange
        | SmallerThanRange
        | SizeOrder
        | NoAction
        | WithTags(_)
        | WithSize(_) => S3Code::InvalidRequest,
        IdTooLong | IdTwice | NotPositive { .. } | NewerTooMany | NotMidnight => S3Code::InvalidArgument,
        // The schema rules these out, so AWS says no more of them than that.
        NoScope | MalformedFilter | TooManyTags | TagWithoutKey => return S3Code::MalformedXML.into(),
    };
    S3Error::new(code).with_message(error.to_string())
}

/// Reads the document.
///
/// # Errors
/// As AWS refuses it.
pub(crate) fn read(document: &Element, minimum_size: MinimumSize) -> Result<Configuration, S3Error> {
    let rules = document.all("Rule").map(read_rule).collect::<Result<Vec<_>, _>>()?;
    Configuration::new(rules, minimum_size).map_err(refused)
}

/// A child that the schema allows once at most.
fn single<'e>(element: &'e Element, name: &'e str) -> Result<Option<&'e Element>, S3Error> {
    let mut all = element.all(name);
    let first = all.next();
    if all.next().is_some() { Err(S3Code::MalformedXML.into()) } else { Ok(first) }
}

fn read_rule(element: &Element) -> Result<Rule, S3Error> {
    let status = match single(element, "Status")?.map(|status| status.text().trim()) {
        Some("Enabled") => Status::Enabled,
        Some("Disabled") => Status::Disabled,
        Some(_) | None => return Err(S3Code::MalformedXML.into()),
    };
    let scope = match (single(element, "Filter")?, single(element, "Prefix")?) {
        (None, None) => return Err(refused(RuleError::NoScope)),
        (Some(_), Some(_)) => return Err(refused(RuleError::PrefixAmongFilters)),
        (None, Some(prefix)) => Scope::Prefix(prefix.text().to_owned()),
        (Some(filter), None) => Scope::Filter(read_filter(filter)?),
    };
    if element.child("Transition").is_some() || element.child("NoncurrentVersionTransition").is_some() {
        return Err(S3Code::InvalidStorageClass.into());
    }
    let expiration = single(element, "Expiration")?.map(read_expiration).transpose()?;
    let noncurrent = single(element, "NoncurrentVersionExpiration")?.map(read_noncurrent).transpose()?;
    let abort = match single(element, "AbortIncompleteMultipartUpload")? {
        None => None,
        Some(abort) => {
            let days = abort.number("DaysAfterInitiation")?.ok_or(S3Code::MalformedXML)?;
            Some(Rule::abort_days(days).map_err(refused)?)
        }
    };
    let id = match single(element, "ID")?.map(Element::text) {
        None | Some("") => new_id()?,
        Some(id) => id.to_owned(),
    };
    Rule::new(id, status, scope, expiration, noncurrent, abort).map_err(refused)
}

/// The id of a rule that came without one.
fn new_id() -> Result<String, S3Error> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|_| S3Code::InternalError)?;
    Ok(hex::encode(random))
}

fn read_filter(element: &Element) -> Result<Filter, S3Error> {
    match single(element, "And")? {
        None => read_predicates(element, FilterForm::Single),
        Some(and) if element.children().len() == 1 => read_predicates(and, FilterForm::And),
        Some(_) => Err(refused(RuleError::MalformedFilter)),
    }
}

fn read_predicates(element: &Element, form: FilterForm) -> Result<Filter, S3Error> {
    let prefix = single(element, "Prefix")?.map(|prefix| prefix.text().to_owned());
    let mut tags = Vec::new();
    for tag in element.all("Tag") {
        tags.push((tag.required("Key")?.to_owned(), tag.required("Value")?.to_owned()));
    }
    let bound = |name| -> Result<Option<i64>, S3Error> {
        single(element, name)?;
        element.number(name)
    };
    let sizes = SizeBounds::new(bound("ObjectSizeGreaterThan")?, bound("ObjectSizeLessThan")?).map_err(refused)?;
    Filter::new(form, prefix, tags, sizes).map_err(refused)
}

fn read_expiration(element: &Element) -> Result<Expiration, S3Error> {
    let days: Option<i64> = element.number("Days")?;
    let date = element.text_of("Date");
    let marker = match element.child("ExpiredObjectDeleteMarker") {
        None => None,
        Some(_) => Some(element.flag("ExpiredObjectDeleteMarker")?),
    };
    match (days, date, marker) {
        (Some(days), None, None) => Expiration::days(days).map_err(refused),
        (None, Some(date), None) => {
            let date = http_date::parse_iso8601(date).ok_or(S3Code::MalformedXML)?;
            Expiration::date(date).map_err(refused)
        }
        (None, None, Some(marker)) => Ok(Expiration::DeleteMarker(marker)),
        _ => Err(S3Code::MalformedXML.into()),
    }
}

fn read_noncurrent(element: &Element) -> Result<NoncurrentExpiration, S3Error> {
    let days = element.number("NoncurrentDays")?.ok_or(S3Code::MalformedXML)?;
    NoncurrentExpiration::new(days, element.number("NewerNoncurrentVersions")?).map_err(refused)
}

/// Writes the document, rules and predicates in the form in which they came.
pub(crate) fn write(configuration: &Configuration) -> String {
    Writer::document("LifecycleConfiguration", Namespace::S3, |xml| {
        configuration.rules().iter().for_each(|rule| write_rule(xml, rule));
    })
}

fn write_rule(xml: &mut Writer, rule: &Rule) {
    xml.element("Rule", |xml| {
        xml.text("ID", rule.id());
        match rule.scope() {
            Scope::Prefix(prefix) => xml.text("Prefix", prefix),
            Scope::Filter(filter) => xml.element("Filter", |xml| match filter.form() {
                FilterForm::Single => write_predicates(xml, filter),
                FilterForm::And => xml.element("And", |xml| write_predicates(xml, filter)),
            }),
        }
        xml.text(
            "Status",
            match rule.status() {
                Status::Enabled => "Enabled",
                Status::Disabled => "Disabled",
            },
        );
        if let Some(expiration) = rule.expiration() {
            xml.element("Expiration", |xml| match expiration {
                Expiration::Days(days) => xml.value("Days", days.get()),
                Expiration::Date(date) => xml.text("Date", &http_date::format_iso8601(date)),
                Expiration::DeleteMarker(is_on) => xml.value("ExpiredObjectDeleteMarker", is_on),
            });
        }
        if let Some(noncurrent) = rule.noncurrent() {
            xml.element("NoncurrentVersionExpiration", |xml| {
                xml.value("NoncurrentDays", noncurrent.days());
                if let Some(newer) = noncurrent.newer() {
                    xml.value("NewerNoncurrentVersions", newer);
                }
            });
        }
        if let Some(abort) = rule.abort() {
            xml.element("AbortIncompleteMultipartUpload", |xml| xml.value("DaysAfterInitiation", abort.get()));
        }
    });
}

fn write_predicates(xml: &mut Writer, filter: &Filter) {
    xml.optional("Prefix", filter.prefix());
    for (key, value) in filter.tags() {
        xml.element("Tag", |xml| {
            xml.text("Key", key);
            xml.text("Value", value);
        });
    }
    if let Some(bound) = filter.sizes().larger_than() {
        xml.value("ObjectSizeGreaterThan", bound);
    }
    if let Some(bound) = filter.sizes().smaller_than() {
        xml.value("ObjectSizeLessThan", bound);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::parse;
    use proptest::prelude::*;

    fn read_text(rules: &str) -> Result<Configuration, S3Error> {
        let document = format!("<LifecycleConfiguration>{rules}</LifecycleConfiguration>");
        read(&parse(document.as_bytes(), "LifecycleConfiguration")?, MinimumSize::default())
    }

    const DAYS: &str = "<Expiration><Days>1</Days></Expiration>";
    const FILTER: &str = "<Filter/>";

    /// A rule that is enabled, with these elements.
    fn rule(elements: &str) -> String {
        format!("<Rule><Status>Enabled</Status>{elements}</Rule>")
    }

    #[test]
    fn a_configuration_is_given_back_as_it_was_set() {
        for rules in [
            "<Rule><ID>a</ID><Prefix>x/</Prefix><Status>Enabled</Status>\
             <Expiration><Days>30</Days></Expiration></Rule>\
             <Rule><ID>b</ID><Prefix>y&amp;</Prefix><Status>Disabled</Status>\
             <Expiration><Date>2030-01-01T00:00:00.000Z</Date></Expiration></Rule>",
            "<Rule><ID>a</ID><Filter></Filter><Status>Enabled</Status>\
             <Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>\
             <NoncurrentVersionExpiration><NoncurrentDays>2</NoncurrentDays>\
             <NewerNoncurrentVersions>3</NewerNoncurrentVersions></NoncurrentVersionExpiration>\
             <AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation>\
             </AbortIncompleteMultipartUpload></Rule>",
            "<Rule><ID>a</ID><Filter><Prefix></Prefix></Filter><Status>Enabled</Status>\
             <NoncurrentVersionExpiration><NoncurrentDays>2</NoncurrentDays></NoncurrentVersionExpiration></Rule>",
            "<Rule><ID>a</ID><Filter><Tag><Key>k</Key><Value></Value></Tag></Filter><Status>Enabled</Status>\
             <Expiration><Days>30</Days></Expiration></Rule>",
            "<Rule><ID>a</ID><Filter><And><Prefix>p</Prefix><Tag><Key>k</Key><Value>v</Value></Tag>\
             <Tag><Key>l</Key><Value>w</Value></Tag><ObjectSizeGreaterThan>0</ObjectSizeGreaterThan>\
             <ObjectSizeLessThan>9</ObjectSizeLessThan></And></Filter><Status>Enabled</Status>\
             <Expiration><Days>30</Days></Expiration></Rule>",
        ] {
            let configuration = read_text(rules).expect(rules);
            assert!(write(&configuration).contains(&format!(">{rules}</Life")), "{}", write(&configuration));
            assert_eq!(Configuration::decode(&configuration.encode()), Ok(configuration));
        }
    }

    #[test]
    fn rules_without_an_id_get_different_ones() {
        let made = read_text(&rule(&format!("{FILTER}{DAYS}")).repeat(2)).expect("rules");
        let ids: Vec<_> = made.rules().iter().map(Rule::id).collect();
        assert!(ids[0].len() == 32 && ids[0] != ids[1], "{ids:?}");
    }

    #[test]
    fn refusals_are_awss() {
        use S3Code::{InvalidArgument, InvalidRequest, InvalidStorageClass, MalformedXML};
        let with = |elements: &str| rule(&format!("{FILTER}{elements}"));
        let filtered = |filter: &str| rule(&format!("<Filter>{filter}</Filter>{DAYS}"));
        let tag = "<Tag><Key>k</Key><Value>v</Value></Tag>";
        let marker = "<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>";
        let abort = |days: &str| {
            format!(
                "<AbortIncompleteMultipartUpload><DaysAfterInitiation>{days}</DaysAfterInitiation>\
                 </AbortIncompleteMultipartUpload>"
            )
        };
        let noncurrent = |inner: &str| format!("<NoncurrentVersionExpiration>{inner}</NoncurrentVersionExpiration>");
        for (rules, code, message) in [
            (String::new(), InvalidRequest, "At least one lifecycle rule must be specified."),
            (with(DAYS).repeat(1_001), InvalidRequest, "must not exceed the allowed limit of 1000 rules"),
            (rule(DAYS), MalformedXML, ""),
            (format!("<Rule>{FILTER}{DAYS}</Rule>"), MalformedXML, ""),
            (format!("<Rule><Status>enabled</Status>{FILTER}{DAYS}</Rule>"), MalformedXML, ""),
            (with(""), InvalidRequest, "At least one action needs to be specified in a rule"),
            (with("<Expiration/>"), MalformedXML, ""),
            (with(&format!("{DAYS}{DAYS}")), MalformedXML, ""),
            (with("<Expiration><Days>0</Days></Expiration>"), InvalidArgument, "'Days' for Expiration action must be"),
            (with("<Expiration><Days>-1</Days></Expiration>"), InvalidArgument, "'Days' for Expiration"),
            (with("<Expiration><Days>one</Days></Expiration>"), MalformedXML, ""),
            (
                with("<Expiration><Date>2020-01-01T00:00:01Z</Date></Expiration>"),
                InvalidArgument,
                "'Date' must be at midnight GMT",
            ),
            (with("<Expiration><Date>Fri, 01 Jan 2016 00:00:00 GMT</Date></Expiration>"), MalformedXML, ""),
            (
                with(
                    "<Expiration><Days>1</Days><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>",
                ),
                MalformedXML,
                "",
            ),
            (with(&abort("0")), InvalidArgument, "'DaysAfterInitiation' for AbortIncompleteMultipartUpload action"),
            (with("<AbortIncompleteMultipartUpload/>"), MalformedXML, ""),
            (with(&noncurrent("")), MalformedXML, ""),
            (with(&noncurrent("<NewerNoncurrentVersions>1</NewerNoncurrentVersions>")), MalformedXML, ""),
            (
                with(&noncurrent("<NoncurrentDays>0</NoncurrentDays>")),
                InvalidArgument,
                "'NoncurrentDays' for NoncurrentVersionExpiration action must be a positive integer",
            ),
            (
                with(&noncurrent(
                    "<NoncurrentDays>1</NoncurrentDays><NewerNoncurrentVersions>0</NewerNoncurrentVersions>",
                )),
                InvalidArgument,
                "'NewerNoncurrentVersions' for NoncurrentVersionExpiration action must be a positive integer",
            ),
            (
                with(&noncurrent(
                    "<NoncurrentDays>1</NoncurrentDays><NewerNoncurrentVersions>101</NewerNoncurrentVersions>",
                )),
                InvalidArgument,
                "",
            ),
            (filtered(&format!("<Prefix/>{tag}")), MalformedXML, ""),
            (filtered(&format!("{tag}{tag}")), MalformedXML, ""),
            (filtered(&format!("<And>{tag}</And>")), MalformedXML, ""),
            (filtered(&format!("<And><Prefix>p</Prefix>{tag}</And><Prefix>p</Prefix>")), MalformedXML, ""),
            (filtered(&format!("<And>{tag}{tag}</And>")), InvalidRequest, "Duplicate Tag Keys are not allowed."),
            (filtered("<Tag><Key>k</Key></Tag>"), MalformedXML, ""),
            (filtered("<ObjectSizeLessThan>0</ObjectSizeLessThan>"), InvalidRequest, "should be between 1 and"),
            (
                rule(&format!("<Filter>{tag}</Filter>{marker}")),
                InvalidRequest,
                "ExpiredObjectDeleteMarker cannot be specified with Tags.",
            ),
            (
                rule(&format!("<Filter><ObjectSizeLessThan>9</ObjectSizeLessThan></Filter>{}", abort("1"))),
                InvalidRequest,
                "AbortIncompleteMultipartUpload cannot be specified with Object Size.",
            ),
            (
                with(DAYS) + &rule(&format!("<Prefix>p</Prefix>{DAYS}")),
                InvalidRequest,
                "Base level prefix cannot be used in Lifecycle V2",
            ),
            (
                with("<Transition><Days>30</Days><StorageClass>GLACIER</StorageClass></Transition>"),
                InvalidStorageClass,
                "",
            ),
            (
                with("<NoncurrentVersionTransition><NoncurrentDays>30</NoncurrentDays></NoncurrentVersionTransition>"),
                InvalidStorageClass,
                "",
            ),
            (with(&format!("<ID>{}</ID>{DAYS}", "x".repeat(256))), InvalidArgument, "ID length should not exceed"),
            (with(&format!("<ID>x</ID>{DAYS}")).repeat(2), InvalidArgument, "Rule ID must be unique"),
        ] {
            let error = read_text(&rules).expect_err(&rules[..rules.len().min(300)]);
            assert_eq!(error.code(), code, "{rules:.300}: {error}");
            assert!(error.message().contains(message), "{rules:.300}: {error}");
        }
    }

    #[test]
    fn the_setting_for_transitions_is_kept_and_nonsense_refused() {
        let mut headers = HeaderMap::new();
        assert_eq!(read_minimum_size(&headers).expect("default"), MinimumSize::AllClasses);
        headers.insert(MINIMUM_SIZE_HEADER, HeaderValue::from_static("varies_by_storage_class"));
        assert_eq!(read_minimum_size(&headers).expect("known"), MinimumSize::ByClass);
        headers.insert(MINIMUM_SIZE_HEADER, HeaderValue::from_static("none"));
        assert_eq!(read_minimum_size(&headers).map_err(|error| error.code()), Err(S3Code::InvalidRequest));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn no_document_makes_the_reader_panic(
            names in prop::collection::vec(
                prop::sample::select(vec![
                    "Rule", "ID", "Status", "Filter", "Prefix", "And", "Tag", "Key", "Value", "Expiration", "Days", "Date",
                    "NoncurrentVersionExpiration", "NoncurrentDays", "NewerNoncurrentVersions", "ObjectSizeLessThan",
                    "AbortIncompleteMultipartUpload", "DaysAfterInitiation", "ObjectSizeGreaterThan",
                ]),
                0..24,
            ),
            texts in prop::collection::vec("Enabled|-?[0-9]{0,20}|[a-z]{0,3}|2020-01-01T00:00:00Z", 24),
            closes in prop::collection::vec(0..3usize, 24),
        ) {
            let (mut xml, mut open) = (String::new(), Vec::new());
            for ((name, text), closes) in names.iter().zip(&texts).zip(&closes) {
                xml += &format!("<{name}>{text}");
                open.push(*name);
                for name in open.drain(open.len().saturating_sub(*closes)..).rev() {
                    xml += &format!("</{name}>");
                }
            }
            open.iter().rev().for_each(|name| xml += &format!("</{name}>"));
            let _ = read_text(&xml);
        }
    }
}
