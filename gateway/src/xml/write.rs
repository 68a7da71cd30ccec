//! Writes S3's response documents.

use std::fmt::Write as _;

/// What every response document of S3 names as its namespace.
const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";

/// Whether a document's root element names S3's namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    /// `xmlns="http://s3.amazonaws.com/doc/2006-03-01/"`.
    S3,
    /// None, as in the few documents where AWS leaves it out.
    None,
}

/// How keys are written in listings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As text. Bytes that are not UTF-8 can't be told in XML and show as U+FFFD.
    Plain,
    /// Percent-encoded (`encoding-type=url`), which carries every byte.
    Url,
}

/// A document being written. Elements are closed by the closure that fills them, so a document is always well-formed.
#[derive(Debug)]
pub struct Writer {
    xml: String,
}

impl Writer {
    /// A whole document, with its declaration.
    pub fn document(root: &str, namespace: Namespace, fill: impl FnOnce(&mut Self)) -> String {
        let mut writer = Self { xml: String::with_capacity(512) };
        writer.xml.push_str(DECLARATION);
        let _ = match namespace {
            Namespace::S3 => write!(writer.xml, "<{root} xmlns=\"{NAMESPACE}\">"),
            Namespace::None => write!(writer.xml, "<{root}>"),
        };
        fill(&mut writer);
        let _ = write!(writer.xml, "</{root}>");
        writer.xml
    }

    /// An element with elements inside.
    pub fn element(&mut self, name: &str, fill: impl FnOnce(&mut Self)) {
        let _ = write!(self.xml, "<{name}>");
        fill(self);
        let _ = write!(self.xml, "</{name}>");
    }

    /// An element with attributes and elements inside. Attributes are constants of ours and need no escaping.
    pub fn element_with(&mut self, name: &str, attributes: &str, fill: impl FnOnce(&mut Self)) {
        let _ = write!(self.xml, "<{name} {attributes}>");
        fill(self);
        let _ = write!(self.xml, "</{name}>");
    }

    /// An element with text.
    pub fn text(&mut self, name: &str, text: &str) {
        let _ = write!(self.xml, "<{name}>");
        self.escape(text);
        let _ = write!(self.xml, "</{name}>");
    }

    /// An element with text, if there is any.
    pub fn optional(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    /// An element with a number or a truth value.
    pub fn value(&mut self, name: &str, value: impl std::fmt::Display) {
        let _ = write!(self.xml, "<{name}>{value}</{name}>");
    }

    /// An element with the bytes of a key, prefix, marker or delimiter.
    pub fn key(&mut self, name: &str, bytes: &[u8], encoding: Encoding) {
        match encoding {
            Encoding::Plain => self.text(name, &String::from_utf8_lossy(bytes)),
            Encoding::Url => self.text(name, &url_encode(bytes)),
        }
    }

    /// An element with a quoted ETag.
    pub fn etag(&mut self, etag: &str) {
        let _ = write!(self.xml, "<ETag>&quot;");
        self.escape(etag);
        let _ = write!(self.xml, "&quot;</ETag>");
    }

    fn escape(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '&' => self.xml.push_str("&amp;"),
                '<' => self.xml.push_str("&lt;"),
                '>' => self.xml.push_str("&gt;"),
                '"' => self.xml.push_str("&quot;"),
                // A parser would normalise a bare CR to LF, and an LF or tab in some places to a space.
                '\r' | '\n' | '\t' => {
                    let _ = write!(self.xml, "&#x{:X};", c as u32);
                }
                // XML 1.0 has no way to write these; AWS emits the reference all the same, and XML 1.1 parsers and
                // lenient ones read it. `encoding-type=url` is for clients that need more.
                c if (c as u32) < 0x20 || matches!(c, '\u{fffe}' | '\u{ffff}') => {
                    let _ = write!(self.xml, "&#x{:X};", c as u32);
                }
                c => self.xml.push(c),
            }
        }
    }
}

/// The first line of every document.
pub(crate) const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

/// Percent-encodes all but letters, digits and `-_.~/`. A space becomes `%20` and not `+`, because every decoder reads
/// that as a space.
pub fn url_encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => out.push(byte as char),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_so_that_a_parser_gives_it_back() {
        let xml = Writer::document("R", Namespace::None, |xml| {
            xml.text("A", "a<b>&\"'\r\n\t\u{1}é");
            xml.etag("0-2");
            xml.optional("B", None);
            xml.value("C", true);
        });
        assert_eq!(
            xml,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<R><A>a&lt;b&gt;&amp;&quot;'&#xD;&#xA;&#x9;&#x1;é</A>\
             <ETag>&quot;0-2&quot;</ETag><C>true</C></R>"
        );
        let tree = crate::xml::parse(xml.as_bytes(), "R").expect("our own document");
        assert_eq!(tree.text_of("A"), Some("a<b>&\"'\r\n\t\u{1}é"));
    }

    #[test]
    fn keys_are_written_as_text_or_percent_encoded() {
        let xml = Writer::document("R", Namespace::S3, |xml| {
            xml.key("K", b"a b/+\xff", Encoding::Url);
            xml.key("K", b"a b/+\xff", Encoding::Plain);
        });
        assert!(xml.contains("<R xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"));
        assert!(xml.contains("<K>a%20b/%2B%FF</K><K>a b/+\u{fffd}</K>"));
    }
}
