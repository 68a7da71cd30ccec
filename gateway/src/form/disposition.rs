//! The two headers with parameters that a form has: the request's Content-Type and each part's Content-Disposition.

use super::parser::FormError;
use crate::error::{S3Code, S3Error};
use http::HeaderMap;
use http::header::CONTENT_TYPE;

/// Longest boundary (RFC 2046, section 5.1.1).
const BOUNDARY_LEN_BYTES_MAX: usize = 70;

/// The text that parts the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boundary(Vec<u8>);

impl Boundary {
    /// Takes 1 to 70 of RFC 2046's characters, the last of them no space.
    pub fn new(text: impl Into<Vec<u8>>) -> Option<Self> {
        let text = text.into();
        let is_allowed = |b: &u8| b.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(b);
        let is_valid = (1..=BOUNDARY_LEN_BYTES_MAX).contains(&text.len())
            && text.iter().all(is_allowed)
            && text.last().is_some_and(|&b| b != b' ');
        is_valid.then_some(Self(text))
    }

    /// Reads the request's Content-Type.
    ///
    /// # Errors
    /// PreconditionFailed if the body is no form, as AWS answers; MalformedPOSTRequest if its boundary is missing or none.
    pub fn of_request(headers: &HeaderMap) -> Result<Self, S3Error> {
        let value = headers.get(CONTENT_TYPE).map(|value| value.as_bytes()).unwrap_or_default();
        let (kind, parameters) = split_at_semicolon(value);
        if !kind.trim_ascii().eq_ignore_ascii_case(b"multipart/form-data") {
            return Err(S3Error::new(S3Code::PreconditionFailed)
                .with_extra("Condition", "Bucket POST must be of the enclosure-type multipart/form-data"));
        }
        // The first one counts; a malformed parameter before it leaves open what the boundary is.
        let boundary = Parameters(parameters)
            .find_map(|parameter| match parameter {
                Ok((name, value)) if name.eq_ignore_ascii_case(b"boundary") => Some(Ok(value)),
                Ok(_) => None,
                Err(error) => Some(Err(error)),
            })
            .transpose()?;
        boundary.and_then(Self::new).ok_or_else(|| FormError::Malformed("the boundary is missing or none").into())
    }

    /// CR LF, two dashes, and the boundary: what ends a part's content.
    pub(super) fn delimiter(&self) -> Vec<u8> {
        [b"\r\n--", self.0.as_slice()].concat()
    }
}

/// What a part's headers say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PartName {
    /// The field's name in lower case: AWS's field names have no case.
    pub(super) name: String,
    /// The file's name without its path, if there is one.
    pub(super) file_name: Option<Vec<u8>>,
}

impl PartName {
    /// Reads the header section of a part: lines, each with its CR LF.
    pub(super) fn read(section: &[u8]) -> Result<Self, FormError> {
        let mut found = None;
        for line in unfolded(section)?.split(|&b| b == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                continue;
            }
            let colon = memchr::memchr(b':', line).ok_or(FormError::Malformed("a part's header has no colon"))?;
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"content-disposition") {
                if found.replace(Self::of_disposition(value)?).is_some() {
                    return Err(FormError::Malformed("a part has two Content-Dispositions"));
                }
            } else if name.eq_ignore_ascii_case(b"content-transfer-encoding") {
                // Nothing else has been sent over HTTP, and an encoding that is not undone would be stored as content.
                let is_identity = [&b"binary"[..], b"8bit", b"7bit"].iter().any(|i| value.eq_ignore_ascii_case(i));
                if !is_identity {
                    return Err(FormError::Malformed("a part has a transfer encoding"));
                }
            }
            // RFC 7578, section 4.8: other headers must be ignored. AWS takes the object's type from a field.
        }
        found.ok_or(FormError::Malformed("a part has no Content-Disposition"))
    }

    fn of_disposition(value: &[u8]) -> Result<Self, FormError> {
        let (kind, parameters) = split_at_semicolon(value);
        if !kind.trim_ascii().eq_ignore_ascii_case(b"form-data") {
            return Err(FormError::Malformed("a part is no form-data"));
        }
        let (mut name, mut file_name) = (None, None);
        for parameter in Parameters(parameters) {
            let (parameter, value) = parameter?;
            let slot = if parameter.eq_ignore_ascii_case(b"name") {
                &mut name
            } else if parameter.eq_ignore_ascii_case(b"filename") {
                &mut file_name
            } else {
                // `filename*` among them, which RFC 7578, section 4.2, forbids in forms.
                continue;
            };
            if slot.replace(value).is_some() {
                return Err(FormError::Malformed("a part has two names"));
            }
        }
        let name = name.filter(|name| !name.is_empty()).ok_or(FormError::Malformed("a part has no name"))?;
        let mut name = String::from_utf8(name).map_err(|_| FormError::Malformed("a part's name is not UTF-8"))?;
        name.make_ascii_lowercase();
        // AWS: "only the text following the last slash (/) or backslash (\) is used".
        let base = |path: Vec<u8>| match path.iter().rposition(|&b| b == b'/' || b == b'\\') {
            Some(at) => path[at + 1..].to_vec(),
            None => path,
        };
        Ok(Self { name, file_name: file_name.map(base) })
    }
}

/// Joins lines that were folded (RFC 2822, section 2.2.3), which a part's headers may be, and refuses a bare CR or LF.
fn unfolded(section: &[u8]) -> Result<Vec<u8>, FormError> {
    let mut out: Vec<u8> = Vec::with_capacity(section.len());
    let mut rest = section.iter().copied().enumerate();
    while let Some((at, byte)) = rest.next() {
        match byte {
            b'\r' if section.get(at + 1) == Some(&b'\n') => {
                let is_fold = matches!(section.get(at + 2), Some(b' ' | b'\t'));
                rest.next();
                if !is_fold {
                    out.push(b'\n');
                }
            }
            b'\r' | b'\n' | 0 => return Err(FormError::Malformed("a part's header has a control character")),
            byte => out.push(byte),
        }
    }
    Ok(out)
}

fn split_at_semicolon(value: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b';', value) {
        Some(at) => (&value[..at], &value[at + 1..]),
        None => (value, b""),
    }
}

/// `name=token` and `name="quoted"`, between semicolons.
struct Parameters<'v>(&'v [u8]);

impl<'v> Iterator for Parameters<'v> {
    type Item = Result<(&'v [u8], Vec<u8>), FormError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.0 = self.0.trim_ascii_start();
            match self.0 {
                [] => return None,
                [b';', rest @ ..] => self.0 = rest,
                _ => break,
            }
        }
        let item = self.parameter();
        if item.is_err() {
            self.0 = b"";
        }
        Some(item)
    }
}

impl<'v> Parameters<'v> {
    fn parameter(&mut self) -> Result<(&'v [u8], Vec<u8>), FormError> {
        const MALFORMED: FormError = FormError::Malformed("a header's parameter is malformed");
        let equals = memchr::memchr(b'=', self.0).ok_or(MALFORMED)?;
        let name = self.0[..equals].trim_ascii();
        if name.is_empty() || name.iter().any(|b| b";\"\\ \t".contains(b)) {
            return Err(MALFORMED);
        }
        let after = self.0[equals + 1..].trim_ascii_start();
        let [b'"', quoted @ ..] = after else {
            let (token, _) = split_at_semicolon(after);
            self.0 = &after[token.len()..];
            let token = token.trim_ascii();
            return if token.iter().any(|b| b"\" \t".contains(b)) {
                Err(MALFORMED)
            } else {
                Ok((name, token.to_vec()))
            };
        };
        // A backslash escapes a quotation mark only: Internet Explorer sent `C:\dir\file` as it stands, and what browsers
        // send today has %22 (HTML, section 4.10.22.8), which is left as it is.
        let mut value = Vec::new();
        let mut rest = quoted;
        loop {
            match rest {
                [] => return Err(MALFORMED),
                [b'"', after @ ..] => {
                    let after = after.trim_ascii_start();
                    if !matches!(after, [] | [b';', ..]) {
                        return Err(MALFORMED);
                    }
                    self.0 = after;
                    return Ok((name, value));
                }
                [b'\\', b'"', after @ ..] => {
                    value.push(b'"');
                    rest = after;
                }
                [byte, after @ ..] => {
                    value.push(*byte);
                    rest = after;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boundary(content_type: &str) -> Result<Vec<u8>, S3Code> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
        Boundary::of_request(&headers).map(|boundary| boundary.0).map_err(|error| error.code())
    }

    #[test]
    fn the_boundary_is_read_as_rfc_2046_writes_it() {
        use S3Code::{MalformedPOSTRequest, PreconditionFailed};
        let longest = "b".repeat(70);
        for (content_type, expected) in [
            ("multipart/form-data; boundary=abc", Ok("abc")),
            ("Multipart/Form-Data;BOUNDARY=abc", Ok("abc")),
            ("multipart/form-data; charset=utf-8; boundary=\"a b\"", Ok("a b")),
            ("multipart/form-data; boundary=\"gc0p4Jq0M:2Yt08jU534c0p\"; x=y", Ok("gc0p4Jq0M:2Yt08jU534c0p")),
            (&format!("multipart/form-data; boundary={longest}"), Ok(longest.as_str())),
            (&format!("multipart/form-data; boundary={longest}b"), Err(MalformedPOSTRequest)),
            ("multipart/form-data", Err(MalformedPOSTRequest)),
            ("multipart/form-data; boundary=", Err(MalformedPOSTRequest)),
            ("multipart/form-data; boundary=\"abc", Err(MalformedPOSTRequest)),
            ("multipart/form-data; boundary=\"abc \"", Err(MalformedPOSTRequest)),
            ("multipart/form-data; boundary=a;boundary=b", Ok("a")),
            ("multipart/form-data; boundary=a@b", Err(MalformedPOSTRequest)),
            ("multipart/mixed; boundary=abc", Err(PreconditionFailed)),
            ("application/x-www-form-urlencoded", Err(PreconditionFailed)),
            ("", Err(PreconditionFailed)),
        ] {
            assert_eq!(boundary(content_type), expected.map(|text| text.as_bytes().to_vec()), "{content_type}");
        }
        let none = Boundary::of_request(&HeaderMap::new()).map_err(|error| error.code());
        assert_eq!(none, Err(PreconditionFailed));
    }

    #[test]
    fn a_parts_headers_name_its_field_and_file() {
        let file = |name: &str, file_name: Option<&str>| {
            Ok(PartName { name: name.to_owned(), file_name: file_name.map(|text| text.as_bytes().to_vec()) })
        };
        for (section, expected) in [
            ("Content-Disposition: form-data; name=\"key\"\r\n", file("key", None)),
            ("content-disposition:form-data;NAME=Key\r\nX-Other: a: b\r\n", file("key", None)),
            (
                "Content-Type: text/plain\r\nContent-Disposition: form-data;\r\n name=\"file\"; filename=\"a b.txt\"\r\n",
                file("file", Some("a b.txt")),
            ),
            ("Content-Disposition: form-data; name=file; filename=\"\"\r\n", file("file", Some(""))),
            ("Content-Disposition: form-data; name=file; filename=\"C:\\dir\\x.txt\"\r\n", file("file", Some("x.txt"))),
            ("Content-Disposition: form-data; name=file; filename=\"/etc/passwd\"\r\n", file("file", Some("passwd"))),
            ("Content-Disposition: form-data; name=file; filename=\"a\\\"b;c\"\r\n", file("file", Some("a\"b;c"))),
            ("Content-Disposition: form-data; name=file; filename=\"å.txt\"\r\n", file("file", Some("å.txt"))),
            ("Content-Disposition: form-data; name=a; filename*=UTF-8''x\r\n", file("a", None)),
            ("Content-Transfer-Encoding: binary\r\nContent-Disposition: form-data; name=a\r\n", file("a", None)),
        ] {
            assert_eq!(PartName::read(section.as_bytes()), expected, "{section}");
        }
        for section in [
            "",
            "Content-Type: text/plain\r\n",
            "Content-Disposition: form-data\r\n",
            "Content-Disposition: form-data; name=\r\n",
            "Content-Disposition: form-data; name=\"\"\r\n",
            "Content-Disposition: form-data; name=\"a\r\n",
            "Content-Disposition: form-data; name=\"a\"b\r\n",
            "Content-Disposition: form-data; name=a; name=b\r\n",
            "Content-Disposition: form-data; name=a; filename=a; filename=b\r\n",
            "Content-Disposition: attachment; name=a\r\n",
            "Content-Disposition: form-data; name=a\r\nContent-Disposition: form-data; name=b\r\n",
            "Content-Disposition form-data\r\n",
            "Content-Disposition: form-data; name=a\nX: y\r\n",
            "Content-Disposition: form-data; name=a\r\nContent-Transfer-Encoding: base64\r\n",
        ] {
            assert!(matches!(PartName::read(section.as_bytes()), Err(FormError::Malformed(_))), "{section}");
        }
        let not_utf8 = b"Content-Disposition: form-data; name=\"\xff\"\r\n";
        assert!(PartName::read(not_utf8).is_err());
    }
}
