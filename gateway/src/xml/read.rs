//! Reads the XML documents that clients send into a small tree.
//!
//! A tree and not serde, because S3's documents must be judged as a whole: a wrong root, text where elements belong, or
//! an unreadable number is MalformedXML, while unknown elements and namespaces are ignored. DTDs are refused: they have
//! no use here and bring entity expansion.

use crate::error::{S3Code, S3Error};
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

/// Elements in one document. A completion of 10,000 parts, each with number, ETag and one checksum, has 40,001; one with
/// every checksum 80,001. Without this bound, 8 MiB of `<a/>` would become 2 million nodes.
const ELEMENTS_MAX: usize = 100_000;
/// Nesting. The deepest document of S3 (lifecycle, And, Tag) has six levels.
const DEPTH_MAX: usize = 16;

/// An element: its local name, its text and its children.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Element {
    name: String,
    text: String,
    children: Vec<Element>,
}

/// Reads a document whose root must be `root`.
///
/// # Errors
/// MalformedXML.
pub fn parse(document: &[u8], root: &str) -> Result<Element, S3Error> {
    let malformed = || S3Error::new(S3Code::MalformedXML);
    let text = std::str::from_utf8(document).map_err(|_| malformed())?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader::from_str(text);
    let mut open: Vec<Element> = Vec::new();
    let mut done: Option<Element> = None;
    let mut count = 0_usize;
    loop {
        let event = reader.read_event().map_err(|_| malformed())?;
        match event {
            Event::Eof => break,
            Event::DocType(_) => return Err(malformed()),
            Event::Decl(_) | Event::PI(_) | Event::Comment(_) => {}
            Event::Start(start) => {
                count += 1;
                if count > ELEMENTS_MAX || open.len() >= DEPTH_MAX || done.is_some() {
                    return Err(malformed());
                }
                open.push(Element::named(&start));
            }
            Event::Empty(start) => {
                count += 1;
                if count > ELEMENTS_MAX || open.len() >= DEPTH_MAX || done.is_some() {
                    return Err(malformed());
                }
                close(Element::named(&start), &mut open, &mut done);
            }
            Event::End(_) => {
                let element = open.pop().ok_or_else(malformed)?;
                close(element, &mut open, &mut done);
            }
            Event::Text(text) => {
                let text = std::str::from_utf8(&text).map_err(|_| malformed())?;
                match open.last_mut() {
                    Some(element) => element.text.push_str(text),
                    None if text.trim().is_empty() => {}
                    None => return Err(malformed()),
                }
            }
            Event::CData(data) => {
                let text = std::str::from_utf8(&data).map_err(|_| malformed())?;
                open.last_mut().ok_or_else(malformed)?.text.push_str(text);
            }
            Event::GeneralRef(reference) => {
                let reference = std::str::from_utf8(&reference).map_err(|_| malformed())?;
                let c = resolve(reference).ok_or_else(malformed)?;
                open.last_mut().ok_or_else(malformed)?.text.push(c);
            }
        }
    }
    match done {
        Some(element) if open.is_empty() && element.name == root => Ok(element),
        _ => Err(malformed()),
    }
}

fn close(element: Element, open: &mut [Element], done: &mut Option<Element>) {
    match open.last_mut() {
        Some(parent) => parent.children.push(element),
        None => *done = Some(element),
    }
}

/// The five entities of XML and character references, those to control characters included: keys may have them.
fn resolve(reference: &str) -> Option<char> {
    match reference {
        "lt" => Some('<'),
        "gt" => Some('>'),
        "amp" => Some('&'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = reference.strip_prefix('#')?;
            let code = match number.strip_prefix('x').or_else(|| number.strip_prefix('X')) {
                Some(hexadecimal) => u32::from_str_radix(hexadecimal, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)
        }
    }
}

impl Element {
    fn named(start: &BytesStart<'_>) -> Self {
        let name = String::from_utf8_lossy(start.local_name().as_ref()).into_owned();
        Self { name, ..Self::default() }
    }

    /// Its local name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its text, exactly as it stands (keys may begin and end with spaces).
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its children.
    pub fn children(&self) -> &[Element] {
        &self.children
    }

    /// Its children of one name.
    pub fn all<'e>(&'e self, name: &'e str) -> impl Iterator<Item = &'e Element> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// Its first child of a name.
    pub fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The text of its first child of a name.
    pub fn text_of(&self, name: &str) -> Option<&str> {
        self.child(name).map(|child| child.text.as_str())
    }

    /// The same, which must be there.
    ///
    /// # Errors
    /// MalformedXML.
    pub fn required(&self, name: &str) -> Result<&str, S3Error> {
        self.text_of(name).ok_or_else(|| S3Code::MalformedXML.into())
    }

    /// A child's number, if the child is there.
    ///
    /// # Errors
    /// MalformedXML if it is no number.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, S3Error> {
        match self.text_of(name) {
            None => Ok(None),
            Some(text) => text.trim().parse().map(Some).map_err(|_| S3Code::MalformedXML.into()),
        }
    }

    /// A child's truth value; false if the child is not there.
    ///
    /// # Errors
    /// MalformedXML if it is neither.
    pub fn flag(&self, name: &str) -> Result<bool, S3Error> {
        match self.text_of(name).map(str::trim) {
            None => Ok(false),
            Some(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Some(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            Some(_) => Err(S3Code::MalformedXML.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_document_is_read_with_its_text_as_it_stands() {
        let document = b"\xef\xbb\xbf<?xml version=\"1.0\"?>\n<!-- c --><s3:Delete xmlns:s3=\"x\"><Quiet>true</Quiet>\
            <Object><Key> a&amp;b&#x1;&#13;<![CDATA[<&>]]> </Key><Unknown a=\"b\"/></Object><Object/></s3:Delete>\n";
        let tree = parse(document, "Delete").expect("document");
        assert!(tree.flag("Quiet").expect("flag"));
        let objects: Vec<_> = tree.all("Object").collect();
        assert_eq!(objects.len(), 2);
        assert_eq!(objects[0].required("Key").expect("key"), " a&b\u{1}\r<&> ");
        assert!(objects[1].required("Key").is_err());
    }

    #[test]
    fn what_is_not_well_formed_is_refused() {
        let deep = format!("{}{}", "<a>".repeat(17), "</a>".repeat(17));
        for bad in [
            "",
            "text",
            "<a>",
            "<a></b>",
            "<b/>",
            "<a/><a/>",
            "<a/>x",
            "<a>&unknown;</a>",
            "<a>&#xD800;</a>",
            "<!DOCTYPE a [<!ENTITY x \"y\">]><a>&x;</a>",
            "<!DOCTYPE a><a/>",
            &deep,
        ] {
            let error = parse(bad.as_bytes(), "a").expect_err(bad);
            assert_eq!(error.code(), S3Code::MalformedXML, "{bad}");
        }
        assert!(parse(b"<a>\xff</a>", "a").is_err());
        let many = format!("<a>{}</a>", "<b/>".repeat(ELEMENTS_MAX));
        assert!(parse(many.as_bytes(), "a").is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), text in "[<>/a&;#x!\\[\\]\"= ?-]{0,40}") {
            let _ = parse(&bytes, "a");
            let _ = parse(text.as_bytes(), "a");
        }
    }
}
