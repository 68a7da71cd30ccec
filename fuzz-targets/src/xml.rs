//! The XML of request bodies. Input: the document.

use std::fmt::Write as _;
use valv_gateway::xml::{Element, Namespace, Writer, parse};

/// Words of S3's documents and of XML's darker corners.
pub const WORDS: &[&str] = &[
    "<Delete>",
    "</Delete>",
    "<Object>",
    "</Object>",
    "<Key>",
    "</Key>",
    "<Quiet>true</Quiet>",
    "&amp;",
    "&lt;",
    "&#x0;",
    "&#1;",
    "&#xD800;",
    "&#x10FFFF;",
    "&#99999999999;",
    "&nbsp;",
    "<![CDATA[",
    "]]>",
    "<!--",
    "-->",
    "<?xml version=\"1.0\"?>",
    "<!DOCTYPE a [<!ENTITY b \"c\">]>",
    " xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"",
    "<a:b xmlns:a=\"c\"/>",
    "/>",
    "\u{feff}",
    "<Delete/>",
];

/// Roots of the documents that clients send.
const ROOTS: [&str; 6] =
    ["Delete", "CompleteMultipartUpload", "Tagging", "VersioningConfiguration", "CreateBucketConfiguration", "a"];

/// See the module.
pub fn run(data: &[u8]) {
    let mut accepted = None;
    for root in ROOTS {
        let Ok(tree) = parse(data, root) else { continue };
        assert_eq!(tree.name(), root);
        assert!(accepted.is_none(), "one document with two roots");
        accepted = Some(tree);
    }
    let Some(tree) = accepted else { return };

    let measure = measure(&tree, 1);
    assert!(measure.depth <= 16 && measure.elements <= 100_000);
    // No reference stands for more bytes than it has: nothing expands.
    assert!(measure.text_len_bytes <= data.len(), "{} bytes became {}", data.len(), measure.text_len_bytes);

    if !measure.are_names_plain {
        return;
    }
    let mut document = String::new();
    write(&tree, &mut document);
    let again = parse(document.as_bytes(), tree.name());
    assert_eq!(again.as_ref().ok(), Some(&tree), "written by hand and read again");
    // The gateway's own writer has no mixed content; leaves must come back.
    let leaves: Vec<&Element> = tree.children().iter().filter(|child| child.children().is_empty()).collect();
    let document = Writer::document(tree.name(), Namespace::S3, |xml| {
        for leaf in &leaves {
            xml.text(leaf.name(), leaf.text());
        }
    });
    let again = parse(document.as_bytes(), tree.name()).expect("our own writer's document");
    assert!(again.children().iter().eq(leaves), "written by Writer and read again");
}

struct Measure {
    depth: usize,
    elements: usize,
    text_len_bytes: usize,
    are_names_plain: bool,
}

fn measure(element: &Element, depth: usize) -> Measure {
    // The parser takes any name; only those that need no quoting are written back.
    let is_plain = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let mut whole =
        Measure { depth, elements: 1, text_len_bytes: element.text().len(), are_names_plain: is_plain(element.name()) };
    for child in element.children() {
        let part = measure(child, depth + 1);
        whole.depth = whole.depth.max(part.depth);
        whole.elements += part.elements;
        whole.text_len_bytes += part.text_len_bytes;
        whole.are_names_plain &= part.are_names_plain;
    }
    whole
}

/// Every character as a reference: nothing is left to any reader's taste.
fn write(element: &Element, out: &mut String) {
    let _ = write!(out, "<{}>", element.name());
    for c in element.text().chars() {
        let _ = write!(out, "&#{};", u32::from(c));
    }
    for child in element.children() {
        write(child, out);
    }
    let _ = write!(out, "</{}>", element.name());
}
