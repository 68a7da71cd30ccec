//! JSON as policies need it: an object that names a field twice is refused.
//!
//! Maps of the usual libraries keep the last of two equal names, so that a reader of the text and its judge could see two
//! different statements. serde_json bounds the nesting (128), so no text can exhaust the stack.

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    /// As text, which is how conditions give numbers.
    Number(String),
    Text(String),
    Array(Vec<Json>),
    /// In the order of the text; every name once.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// A scalar's text, as condition values are written: `"true"` and `true` are the same.
    pub(crate) fn scalar(&self) -> Option<String> {
        match self {
            Self::Bool(value) => Some(value.to_string()),
            Self::Number(text) | Self::Text(text) => Some(text.clone()),
            Self::Null | Self::Array(_) | Self::Object(_) => None,
        }
    }

    /// One value, or the values of an array.
    pub(crate) fn one_or_many(&self) -> &[Json] {
        match self {
            Self::Array(values) => values,
            one => std::slice::from_ref(one),
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.to_string()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.to_string()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Number(value.to_string()))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = access.next_element()? {
            values.push(value);
        }
        Ok(Json::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut fields = Vec::new();
        let mut names = std::collections::HashSet::new();
        while let Some((name, value)) = access.next_entry::<String, Json>()? {
            if !names.insert(name.clone()) {
                return Err(A::Error::custom("a field is named twice"));
            }
            fields.push((name, value));
        }
        Ok(Json::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_named_twice_is_refused() {
        assert!(serde_json::from_str::<Json>(r#"{"a":1,"b":[true,null,"x",1.5]}"#).is_ok());
        assert!(serde_json::from_str::<Json>(r#"{"a":1,"a":1}"#).is_err());
        assert!(serde_json::from_str::<Json>(r#"{"a":1,"\u0061":1}"#).is_err());
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = "[".repeat(20_000);
        assert!(serde_json::from_str::<Json>(&deep).is_err());
    }
}
