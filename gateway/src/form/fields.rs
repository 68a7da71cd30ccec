//! The fields of a form that stand before its file.

use crate::error::S3Error;

/// What AWS puts in place of the file's name.
const FILE_NAME_VARIABLE: &[u8] = b"${filename}";

/// Fields before the file, names in lower case: "the post parameters are case insensitive".
///
/// A name that comes more than once has one value, joined by commas, as AWS says; so what a policy is checked against
/// and what is done are always the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FormFields {
    fields: Vec<(String, Vec<u8>)>,
    file_name: Option<Vec<u8>>,
}

impl FormFields {
    pub(super) fn add(&mut self, name: String, value: Vec<u8>) {
        match self.fields.iter_mut().find(|(seen, _)| *seen == name) {
            Some((_, joined)) => {
                joined.push(b',');
                joined.extend_from_slice(&value);
            }
            None => self.fields.push((name, value)),
        }
    }

    pub(super) fn set_file_name(&mut self, file_name: Option<Vec<u8>>) {
        self.file_name = file_name;
    }

    /// A field's value. `name` in lower case.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_slice())
    }

    /// A field's value as text.
    ///
    /// # Errors
    /// InvalidArgument if it is not UTF-8.
    pub fn text(&self, name: &str) -> Result<Option<&str>, S3Error> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match std::str::from_utf8(value) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(S3Error::invalid_argument("The field is not valid UTF-8", name, "")),
        }
    }

    /// A field that must be there; `shown` is how AWS writes its name.
    ///
    /// # Errors
    /// InvalidArgument, in AWS's wording.
    pub fn required(&self, shown: &'static str) -> Result<&str, S3Error> {
        self.text(&shown.to_ascii_lowercase())?.ok_or_else(|| {
            S3Error::invalid_argument(
                format!(
                    "Bucket POST must contain a field named '{shown}'.  If it is specified, please check the order of \
                     the fields."
                ),
                shown,
                "",
            )
        })
    }

    /// Every field, in the order in which the names came first.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// The file's name without its path, as the client gave it.
    pub fn file_name(&self) -> Option<&[u8]> {
        self.file_name.as_deref()
    }

    /// Replaces `${filename}` in every field, before a policy is looked at: "all variables within the form are expanded
    /// prior to validating the POST policy". Without a file name it becomes nothing.
    ///
    /// The policy and what signs it stand as they were signed. `len_bytes_max` bounds what all values have afterwards:
    /// a form of many variables and a long name would otherwise grow to the product of both.
    ///
    /// # Errors
    /// The sum of lengths would be more than `len_bytes_max`.
    pub(super) fn expand_file_name(&mut self, len_bytes_max: usize) -> Result<(), TooLong> {
        const AS_SIGNED: [&str; 6] =
            ["policy", "x-amz-signature", "x-amz-credential", "x-amz-algorithm", "x-amz-date", "x-amz-security-token"];
        let file_name = self.file_name.as_deref().unwrap_or_default();
        let mut len_bytes = 0;
        for (name, value) in &mut self.fields {
            if !AS_SIGNED.contains(&name.as_str()) {
                let count = memchr::memmem::find_iter(value, FILE_NAME_VARIABLE).count();
                if count > 0 {
                    let expanded_len = value.len() - count * FILE_NAME_VARIABLE.len() + count * file_name.len();
                    if len_bytes + expanded_len > len_bytes_max {
                        return Err(TooLong);
                    }
                    *value = replace(value, file_name);
                }
            }
            len_bytes += value.len();
        }
        if len_bytes > len_bytes_max { Err(TooLong) } else { Ok(()) }
    }
}

/// The fields would be longer than they may.
#[derive(Debug)]
pub(super) struct TooLong;

fn replace(value: &[u8], with: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = memchr::memmem::find(rest, FILE_NAME_VARIABLE) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(with);
        rest = &rest[at + FILE_NAME_VARIABLE.len()..];
    }
    out.extend_from_slice(rest);
    out
}

#[cfg(test)]
impl FormFields {
    /// Fields as if they had come in this order.
    pub(crate) fn of<const N: usize>(fields: [(&str, &str); N]) -> Self {
        let mut all = Self::default();
        for (name, value) in fields {
            all.add(name.to_owned(), value.as_bytes().to_vec());
        }
        all
    }
}
