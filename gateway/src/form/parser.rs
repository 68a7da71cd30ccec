//! multipart/form-data, without I/O: bytes go in, events come out, and any cut of the input gives the same output.
//!
//! ```text
//! --boundary CRLF
//! Content-Disposition: form-data; name="key" CRLF
//! CRLF
//! value CRLF
//! --boundary CRLF
//! Content-Disposition: form-data; name="file"; filename="x" CRLF
//! CRLF
//! the file CRLF
//! --boundary-- CRLF
//! ```
//!
//! Stricter than RFC 2046 in one thing: a line that begins with the boundary and goes on is refused. The RFC calls it a
//! delimiter and common parsers call it content; storing either could be wrong. Lines end in CR LF, and in nothing else.
//! A body that does not reach its closing boundary is never whole ([`FormParser::finish`]).

use super::disposition::{Boundary, PartName};
use super::fields::FormFields;
use crate::error::{S3Code, S3Error};
use crate::limits::{FORM_FIELDS_LEN_BYTES_MAX, FORM_FIELDS_MAX, FORM_PART_HEADERS_LEN_BYTES_MAX};
use bytes::{Buf as _, Bytes};

/// Bytes before the first boundary and after the last that are passed over. RFC 2046 has them ignored; no HTTP client
/// sends any but a CR LF or two.
const PADDING_LEN_BYTES_MAX: usize = 1024;
/// The name of the part that is the file.
const FILE: &str = "file";

/// Why a form was refused. All are the client's to mend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// The body is not what RFC 7578 says.
    #[error("malformed form: {0}")]
    Malformed(&'static str),
    /// The body ended before its closing boundary.
    #[error("the form ended before its closing boundary")]
    Truncated,
    /// The fields before the file have more bytes than they may.
    #[error("the fields before the file are too long")]
    FieldsTooLong,
    /// There are more fields than any form needs.
    #[error("too many fields")]
    TooManyFields,
    /// No part, or more than one, is named `file`.
    #[error("{count} files in the form")]
    NotOneFile {
        /// How many were seen when the form was refused.
        count: u8,
    },
}

impl From<FormError> for S3Error {
    fn from(error: FormError) -> Self {
        let mapped = match error {
            FormError::Malformed(_) | FormError::Truncated | FormError::TooManyFields => {
                S3Error::new(S3Code::MalformedPOSTRequest)
            }
            FormError::FieldsTooLong => S3Error::new(S3Code::MaxPostPreDataLengthExceededError)
                .with_extra("MaxPostPreDataLengthBytes", FORM_FIELDS_LEN_BYTES_MAX.to_string()),
            FormError::NotOneFile { count } => {
                S3Error::invalid_argument("POST requires exactly one file upload per request.", FILE, count.to_string())
            }
        };
        mapped.with_source(error)
    }
}

/// What came out of the parser.
#[derive(Debug, PartialEq, Eq)]
pub enum FormEvent {
    /// The fields, once, when the file begins.
    Fields(FormFields),
    /// Bytes of the file: a slice of the input, not copied.
    File(Bytes),
    /// The input is used up; feed more, or ask [`FormParser::finish`] whether this was all.
    NeedInput,
}

/// What becomes of a part's content.
#[derive(Debug)]
enum Sink {
    /// The value of a field before the file.
    Field { name: String, value: Vec<u8> },
    /// The file.
    File,
    /// What stands before the first boundary, and fields after the file: AWS ignores them.
    Nothing { left: usize },
}

/// Where in the form the parser is.
#[derive(Debug)]
enum State {
    /// In content. `matched` bytes of the delimiter have come; should the rest not follow, they were content, all but the
    /// first `unowed`, which ended the line before the content.
    Content { sink: Sink, matched: usize, unowed: usize },
    /// After a boundary.
    Boundary(Tail),
    /// In a part's headers.
    Headers(Vec<u8>),
    /// After the closing boundary.
    Closed { left: usize },
}

/// What has come after a boundary: it may be followed by two dashes, or by white space and a line end.
#[derive(Debug, Clone, Copy)]
enum Tail {
    Nothing,
    Dash,
    White { left: usize },
    Cr,
}

/// A form's parser. Memory: the fields and one part's headers.
#[derive(Debug)]
pub struct FormParser {
    delimiter: Bytes,
    state: State,
    fields: FormFields,
    fields_len_bytes: usize,
    parts: usize,
    has_file: bool,
}

impl FormParser {
    /// Before the first byte of a body.
    pub fn new(boundary: &Boundary) -> Self {
        Self {
            delimiter: boundary.delimiter().into(),
            // The body begins a line, though no CR LF stands before it.
            state: content(Sink::Nothing { left: PADDING_LEN_BYTES_MAX }),
            fields: FormFields::default(),
            fields_len_bytes: 0,
            parts: 0,
            has_file: false,
        }
    }

    /// Takes from `input` until there is something to tell.
    ///
    /// # Errors
    /// [`FormError`]; the parser must not be used after one.
    pub fn next(&mut self, input: &mut Bytes) -> Result<FormEvent, FormError> {
        while !input.is_empty() {
            let event = match self.state {
                State::Content { .. } => self.content(input)?,
                State::Boundary(_) => self.boundary(input)?,
                State::Headers(_) => self.headers(input)?,
                State::Closed { .. } => self.closed(input)?,
            };
            if let Some(event) = event {
                return Ok(event);
            }
        }
        Ok(FormEvent::NeedInput)
    }

    /// Judges a body that has ended.
    ///
    /// # Errors
    /// Truncated if the closing boundary has not come.
    pub const fn finish(&self) -> Result<(), FormError> {
        match self.state {
            State::Closed { .. } => Ok(()),
            _ => Err(FormError::Truncated),
        }
    }

    fn content(&mut self, input: &mut Bytes) -> Result<Option<FormEvent>, FormError> {
        let State::Content { matched, unowed, .. } = &mut self.state else { return Ok(None) };
        if *matched > 0 {
            let rest = &self.delimiter[*matched..];
            let agreeing = rest.iter().zip(input.iter()).take_while(|(a, b)| a == b).count();
            if agreeing == rest.len() || agreeing == input.len() {
                *matched += agreeing;
                input.advance(agreeing);
                return if *matched == self.delimiter.len() { self.content_ends() } else { Ok(None) };
            }
            // It was content after all. A delimiter has no CR but its first byte, so none can begin inside of it, and the
            // input is looked at from its beginning.
            let was = self.delimiter.slice(*unowed..*matched);
            (*matched, *unowed) = (0, 0);
            if !was.is_empty() {
                return self.put(was);
            }
        }
        // Everything up to a whole delimiter, or up to a CR that may begin one at the input's end.
        let (len, matched_now) = match memchr::memmem::find(input, &self.delimiter) {
            Some(at) => (at, self.delimiter.len()),
            None => {
                let tail = input.len().saturating_sub(self.delimiter.len() - 1);
                let begins = |&at: &usize| self.delimiter.starts_with(&input[at..]);
                let at = memchr::memchr_iter(b'\r', &input[tail..]).map(|at| tail + at).find(begins);
                at.map_or((input.len(), 0), |at| (at, input.len() - at))
            }
        };
        let data = input.split_to(len);
        input.advance(matched_now);
        if let State::Content { matched, .. } = &mut self.state {
            *matched = matched_now;
        }
        if matched_now < self.delimiter.len() {
            return self.put(data);
        }
        // A whole delimiter: what comes before it is told first, and the state tells that the part has ended.
        match self.put(data)? {
            None => self.content_ends(),
            Some(event) => {
                self.content_ends()?;
                Ok(Some(event))
            }
        }
    }

    /// Content, to where it goes.
    fn put(&mut self, data: Bytes) -> Result<Option<FormEvent>, FormError> {
        let State::Content { sink, .. } = &mut self.state else { return Ok(None) };
        match sink {
            _ if data.is_empty() => {}
            Sink::File => return Ok(Some(FormEvent::File(data))),
            Sink::Field { value, .. } => {
                self.fields_len_bytes += data.len();
                if self.fields_len_bytes > FORM_FIELDS_LEN_BYTES_MAX {
                    return Err(FormError::FieldsTooLong);
                }
                value.extend_from_slice(&data);
            }
            Sink::Nothing { left } => match left.checked_sub(data.len()) {
                Some(still) => *left = still,
                None => return Err(FormError::Malformed("too much outside of fields and file")),
            },
        }
        Ok(None)
    }

    /// After a whole delimiter.
    fn content_ends(&mut self) -> Result<Option<FormEvent>, FormError> {
        let state = std::mem::replace(&mut self.state, State::Boundary(Tail::Nothing));
        if let State::Content { sink: Sink::Field { name, value }, .. } = state {
            self.fields.add(name, value);
        }
        Ok(None)
    }

    fn boundary(&mut self, input: &mut Bytes) -> Result<Option<FormEvent>, FormError> {
        let State::Boundary(tail) = self.state else { return Ok(None) };
        let byte = input.get_u8();
        self.state = match (tail, byte) {
            (Tail::Nothing, b'-') => State::Boundary(Tail::Dash),
            (Tail::Dash, b'-') if self.has_file => State::Closed { left: PADDING_LEN_BYTES_MAX },
            (Tail::Dash, b'-') => return Err(FormError::NotOneFile { count: 0 }),
            (Tail::Nothing, b' ' | b'\t') => State::Boundary(Tail::White { left: PADDING_LEN_BYTES_MAX }),
            (Tail::White { left: left @ 1.. }, b' ' | b'\t') => State::Boundary(Tail::White { left: left - 1 }),
            (Tail::Nothing | Tail::White { .. }, b'\r') => State::Boundary(Tail::Cr),
            (Tail::Cr, b'\n') => {
                self.parts += 1;
                if self.parts > FORM_FIELDS_MAX + 1 {
                    return Err(FormError::TooManyFields);
                }
                State::Headers(Vec::new())
            }
            _ => return Err(FormError::Malformed("a boundary's line goes on")),
        };
        Ok(None)
    }

    fn headers(&mut self, input: &mut Bytes) -> Result<Option<FormEvent>, FormError> {
        let State::Headers(section) = &mut self.state else { return Ok(None) };
        // Byte by byte: the section is short, and its end may be cut anywhere.
        while !input.is_empty() {
            section.push(input.get_u8());
            if section.ends_with(b"\r\n\r\n") || section == b"\r\n" {
                // A boundary with a colon in it would pass for a header.
                let is_cut = section.starts_with(&self.delimiter[2..])
                    || memchr::memmem::find(section, &self.delimiter).is_some();
                if is_cut {
                    return Err(FormError::Malformed("a boundary among a part's headers"));
                }
                let part = PartName::read(&section[..section.len() - 2])?;
                return self.part_begins(part);
            }
            if section.len() >= FORM_PART_HEADERS_LEN_BYTES_MAX {
                return Err(FormError::Malformed("a part's headers are too long"));
            }
        }
        Ok(None)
    }

    fn part_begins(&mut self, part: PartName) -> Result<Option<FormEvent>, FormError> {
        let is_file = part.name == FILE;
        if self.has_file {
            if is_file {
                return Err(FormError::NotOneFile { count: 2 });
            }
            self.state = content(Sink::Nothing { left: FORM_FIELDS_LEN_BYTES_MAX });
            return Ok(None);
        }
        if is_file {
            self.has_file = true;
            self.state = content(Sink::File);
            let mut fields = std::mem::take(&mut self.fields);
            fields.set_file_name(part.file_name);
            fields.expand_file_name(FORM_FIELDS_LEN_BYTES_MAX).map_err(|_| FormError::FieldsTooLong)?;
            return Ok(Some(FormEvent::Fields(fields)));
        }
        self.fields_len_bytes += part.name.len();
        if self.fields_len_bytes > FORM_FIELDS_LEN_BYTES_MAX {
            return Err(FormError::FieldsTooLong);
        }
        self.state = content(Sink::Field { name: part.name, value: Vec::new() });
        Ok(None)
    }

    fn closed(&mut self, input: &mut Bytes) -> Result<Option<FormEvent>, FormError> {
        let State::Closed { left } = &mut self.state else { return Ok(None) };
        // White space only: anything else would be a file that had the closing boundary in it.
        let is_white = input.iter().take(*left + 1).all(|b| b" \t\r\n".contains(b));
        match left.checked_sub(input.len()) {
            Some(still) if is_white => *left = still,
            _ => return Err(FormError::Malformed("bytes follow the closing boundary")),
        }
        input.clear();
        Ok(None)
    }
}

/// The beginning of content, which begins a line: the delimiter's CR LF has come already, and is no content.
const fn content(sink: Sink) -> State {
    State::Content { sink, matched: 2, unowed: 2 }
}
