//! What a request says of an access control list, in headers or as a document, before anybody is looked up.
//!
//! Source: "Access control list (ACL) overview", and the API reference of PutBucketAcl and PutObjectAcl.

use super::headers::text;
use crate::error::{S3Code, S3Error};
use crate::xml::Element;
use http::HeaderMap;
use valv_policy::acl::GRANTS_MAX;
use valv_policy::{CannedAcl, Permission};

/// The headers that grant.
const GRANT_HEADERS: [(&str, Permission); 5] = [
    ("x-amz-grant-read", Permission::Read),
    ("x-amz-grant-write", Permission::Write),
    ("x-amz-grant-read-acp", Permission::ReadAcp),
    ("x-amz-grant-write-acp", Permission::WriteAcp),
    ("x-amz-grant-full-control", Permission::FullControl),
];

/// A grantee as the client names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NamedGrantee {
    /// By canonical id.
    Id(String),
    /// By the address of an account.
    Email(String),
    /// A group.
    Uri(String),
}

/// A grant as the client names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamedGrant {
    pub(super) grantee: NamedGrantee,
    pub(super) permission: Permission,
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    Canned(CannedAcl),
    Grants(Vec<NamedGrant>),
}

/// What the headers ask for; `None` if they say nothing of ACLs.
///
/// # Errors
/// InvalidArgument; InvalidRequest for both forms at once; MalformedACLError for too many grants.
pub(super) fn read_headers(headers: &HeaderMap) -> Result<Option<Wanted>, S3Error> {
    let mut grants = Vec::new();
    let mut has_grants = false;
    for (name, permission) in GRANT_HEADERS {
        let Some(header) = headers.get(name) else { continue };
        has_grants = true;
        let invalid = || {
            let value = String::from_utf8_lossy(header.as_bytes());
            S3Error::invalid_argument("Argument format not recognized", name, value)
        };
        let list = std::str::from_utf8(header.as_bytes()).map_err(|_| invalid())?;
        for one in list.split(',').map(str::trim).filter(|one| !one.is_empty()) {
            let (kind, value) = one.split_once('=').ok_or_else(invalid)?;
            let value = value.trim();
            let value = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value).to_owned();
            let grantee = match kind.trim().to_ascii_lowercase().as_str() {
                "id" => NamedGrantee::Id(value),
                "emailaddress" => NamedGrantee::Email(value),
                "uri" => NamedGrantee::Uri(value),
                _ => return Err(invalid()),
            };
            grants.push(NamedGrant { grantee, permission });
        }
    }
    check_count(grants.len())?;
    match (headers.contains_key("x-amz-acl"), has_grants) {
        (false, false) => Ok(None),
        (false, true) => Ok(Some(Wanted::Grants(grants))),
        (true, true) => Err(S3Error::invalid_request("Specifying both Canned ACLs and Header Grants is not allowed")),
        (true, false) => {
            let name = text(headers, "x-amz-acl").unwrap_or_default();
            let canned = CannedAcl::parse(name).ok_or_else(|| S3Error::invalid_argument("", "x-amz-acl", name))?;
            Ok(Some(Wanted::Canned(canned)))
        }
    }
}

/// An AccessControlPolicy: the owner that it names, and the grants.
///
/// # Errors
/// MalformedACLError.
pub(super) fn read_document(body: &[u8]) -> Result<(String, Vec<NamedGrant>), S3Error> {
    let document = crate::xml::parse(body, "AccessControlPolicy").map_err(|_| malformed())?;
    let owner = document.child("Owner").and_then(|owner| owner.text_of("ID")).ok_or_else(malformed)?;
    let list = document.child("AccessControlList").ok_or_else(malformed)?;
    check_count(list.children().len())?;
    let grants = list.children().iter().map(read_grant).collect::<Result<_, _>>()?;
    Ok((owner.trim().to_owned(), grants))
}

/// Which kind of grantee it is is told by its element; `xsi:type` says it a second time.
fn read_grant(grant: &Element) -> Result<NamedGrant, S3Error> {
    let grantee = grant.child("Grantee").filter(|_| grant.name() == "Grant").ok_or_else(malformed)?;
    let named = |element| grantee.text_of(element).map(|text: &str| text.trim().to_owned());
    let grantee = match (named("ID"), named("EmailAddress"), named("URI")) {
        (Some(id), None, None) => NamedGrantee::Id(id),
        (None, Some(address), None) => NamedGrantee::Email(address),
        (None, None, Some(uri)) => NamedGrantee::Uri(uri),
        _ => return Err(malformed()),
    };
    let permission = grant.text_of("Permission").and_then(|text| Permission::parse(text.trim()));
    Ok(NamedGrant { grantee, permission: permission.ok_or_else(malformed)? })
}

fn check_count(count: usize) -> Result<(), S3Error> {
    if count > GRANTS_MAX { Err(malformed()) } else { Ok(()) }
}

fn malformed() -> S3Error {
    S3Code::MalformedACLError.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| ((*name).parse().expect("name"), value.parse().expect("value"))).collect()
    }

    fn grant(grantee: NamedGrantee, permission: Permission) -> NamedGrant {
        NamedGrant { grantee, permission }
    }

    #[test]
    fn headers_are_read_in_every_form_that_clients_send() {
        let read = |pairs: &[(&'static str, &str)]| read_headers(&headers(pairs)).map_err(|error| error.code());
        assert_eq!(read(&[("x-amz-date", "x")]), Ok(None));
        assert_eq!(read(&[("x-amz-acl", "public-read")]), Ok(Some(Wanted::Canned(CannedAcl::PublicRead))));
        assert_eq!(read(&[("x-amz-acl", "open")]), Err(S3Code::InvalidArgument));
        assert_eq!(read(&[("x-amz-acl", "private"), ("x-amz-grant-read", "id=a")]), Err(S3Code::InvalidRequest));
        let all = "http://acs.amazonaws.com/groups/global/AllUsers";
        let list = format!("id=\"a\", emailAddress=\"b@c.se\",uri={all}");
        assert_eq!(
            read(&[("x-amz-grant-read", &list), ("x-amz-grant-full-control", "id=d")]),
            Ok(Some(Wanted::Grants(vec![
                grant(NamedGrantee::Id("a".to_owned()), Permission::Read),
                grant(NamedGrantee::Email("b@c.se".to_owned()), Permission::Read),
                grant(NamedGrantee::Uri(all.to_owned()), Permission::Read),
                grant(NamedGrantee::Id("d".to_owned()), Permission::FullControl),
            ])))
        );
        for broken in ["a", "name=a", "=a"] {
            assert_eq!(read(&[("x-amz-grant-write", broken)]), Err(S3Code::InvalidArgument), "{broken}");
        }
        let mut raw = HeaderMap::new();
        raw.insert("x-amz-grant-read", HeaderValue::from_bytes(b"id=\xff").expect("value"));
        assert_eq!(read_headers(&raw).map_err(|error| error.code()), Err(S3Code::InvalidArgument));
        let many = "id=a,".repeat(GRANTS_MAX + 1);
        assert_eq!(read(&[("x-amz-grant-read", &many)]), Err(S3Code::MalformedACLError));
    }

    #[test]
    fn documents_are_read_whole_or_refused() {
        let read = |list: &str| {
            let owner = "<Owner><ID>o</ID><DisplayName>O</DisplayName></Owner>";
            let body = format!(
                "<AccessControlPolicy xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{owner}{list}</AccessControlPolicy>"
            );
            read_document(body.as_bytes()).map_err(|error| error.code())
        };
        let one = |grantee: &str, permission: &str| {
            format!(
                "<AccessControlList><Grant><Grantee xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" \
                 xsi:type=\"CanonicalUser\">{grantee}</Grantee><Permission>{permission}</Permission></Grant>\
                 </AccessControlList>"
            )
        };
        assert_eq!(read("<AccessControlList/>"), Ok(("o".to_owned(), Vec::new())));
        assert_eq!(
            read(&one("<ID>a</ID><DisplayName>A</DisplayName>", "WRITE_ACP")),
            Ok(("o".to_owned(), vec![grant(NamedGrantee::Id("a".to_owned()), Permission::WriteAcp)]))
        );
        assert_eq!(
            read(&one("<EmailAddress>a@b</EmailAddress>", "READ")),
            Ok(("o".to_owned(), vec![grant(NamedGrantee::Email("a@b".to_owned()), Permission::Read)]))
        );
        for broken in [
            String::new(),
            one("", "READ"),
            one("<ID>a</ID><URI>b</URI>", "READ"),
            one("<ID>a</ID>", "read"),
            "<AccessControlList><Grantee/></AccessControlList>".to_owned(),
            "<AccessControlList>".to_owned(),
        ] {
            assert_eq!(read(&broken), Err(S3Code::MalformedACLError), "{broken}");
        }
        let grants = one("<ID>a</ID>", "READ");
        let inner = grants.trim_start_matches("<AccessControlList>").trim_end_matches("</AccessControlList>");
        let many = format!("<AccessControlList>{}</AccessControlList>", inner.repeat(GRANTS_MAX + 1));
        assert_eq!(read(&many), Err(S3Code::MalformedACLError));
    }
}
