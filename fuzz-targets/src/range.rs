//! The Range header and x-amz-copy-source-range. Input: a length in decimal, a newline, the header.

use valv_gateway::range::ByteRange;

/// Words of Range headers.
pub const WORDS: &[&str] = &[
    "bytes=",
    "bytes",
    "=",
    "-",
    "0-",
    "-0",
    ",",
    " ",
    "18446744073709551615",
    "18446744073709551616",
    "+1",
    "items=0-1",
];

/// See the module.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some((len, header)) = text.split_once('\n') else { return };
    let Ok(len) = len.parse::<u64>() else { return };
    let parsed = ByteRange::parse(header);
    let copied = ByteRange::copy_source(header, len);
    let Some(range) = parsed else {
        assert!(copied.is_err(), "a copy range that is no range");
        return;
    };
    assert!(!header.contains(','), "several ranges are none");
    assert_eq!(ByteRange::parse(&range.to_string()), Some(range), "written and read again");

    // What RFC 9110, section 14.1.2, says in one line for each form.
    let wanted = match range {
        ByteRange::FromTo(first, last) if first <= last && first < len => Some((first, last.min(len - 1))),
        ByteRange::From(first) if first < len => Some((first, len - 1)),
        ByteRange::Last(count) if count > 0 && len > 0 => Some((len - count.min(len), len - 1)),
        _ => None,
    };
    match range.resolve(len) {
        Ok(bytes) => assert_eq!(Some((bytes.start, bytes.end - 1)), wanted),
        Err(error) => {
            assert_eq!(wanted, None, "refused though there are bytes");
            assert_eq!(error.status(), 416);
        }
    }
    match (copied, range) {
        (Ok(bytes), ByteRange::FromTo(first, last)) => {
            assert!(last < len && bytes == (first..last + 1), "a copied range is never shortened");
        }
        (Ok(_), _) => panic!("only first-last can be copied"),
        (Err(_), ByteRange::FromTo(_, last)) => assert!(last >= len),
        (Err(_), _) => {}
    }
}
