//! Why a rule is refused.

use crate::rule::{ID_CHARS_MAX, NEWER_MAX, PREFIX_LEN_BYTES_MAX, RULES_MAX, SIZE_BYTES_MAX, TAGS_MAX};

/// What is wrong with a rule. The texts are those that S3 answers where its answer is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// A configuration without rules.
    #[error("At least one lifecycle rule must be specified.")]
    NoRules,
    /// More than [`RULES_MAX`] rules.
    #[error("The number of lifecycle rules must not exceed the allowed limit of {RULES_MAX} rules.")]
    TooManyRules,
    /// An id longer than [`ID_CHARS_MAX`].
    #[error("ID length should not exceed allowed limit of {ID_CHARS_MAX}")]
    IdTooLong,
    /// Two rules of one id.
    #[error("Rule ID must be unique. Found same ID for more than one rule")]
    IdTwice,
    /// Neither a filter nor a prefix of its own.
    #[error("The rule says neither by Filter nor by Prefix what it applies to")]
    NoScope,
    /// Filters and rule-level prefixes in one configuration, a filter first.
    #[error("Base level prefix cannot be used in Lifecycle V2, prefixes are only supported in the Filter.")]
    PrefixAmongFilters,
    /// The same, a rule-level prefix first.
    #[error("Filter element can only be used in Lifecycle V2.")]
    FilterAmongPrefixes,
    /// NewerNoncurrentVersions in a rule without a filter.
    #[error("NewerNoncurrentVersions element can only be used in Lifecycle V2.")]
    NewerWithoutFilter,
    /// Two rule-level prefixes of which one begins with the other, for one action.
    #[error("Found overlapping prefixes '{0}' and '{1}' for same action type '{2}'")]
    OverlappingPrefixes(String, String, &'static str),
    /// A prefix longer than a key.
    #[error("The maximum size of a prefix is {PREFIX_LEN_BYTES_MAX}")]
    PrefixTooLong,
    /// A filter of several predicates without And, or an And of fewer than two.
    #[error("A Filter holds at most one predicate, and an And at least two")]
    MalformedFilter,
    /// More tags than an object can have.
    #[error("The filter names more than {TAGS_MAX} tags")]
    TooManyTags,
    /// A tag without a key.
    #[error("A tag has no key")]
    TagWithoutKey,
    /// A tag's key twice.
    #[error("Duplicate Tag Keys are not allowed.")]
    TagTwice,
    /// ObjectSizeGreaterThan out of its range.
    #[error("'ObjectSizeGreaterThan' should be between 0 and {SIZE_BYTES_MAX}.")]
    LargerThanRange,
    /// ObjectSizeLessThan out of its range.
    #[error("'ObjectSizeLessThan' should be between 1 and {SIZE_BYTES_MAX}.")]
    SmallerThanRange,
    /// No size lies between both bounds.
    #[error("'ObjectSizeLessThan' has to be a value greater than 'ObjectSizeGreaterThan'.")]
    SizeOrder,
    /// A rule that does nothing.
    #[error("At least one action needs to be specified in a rule")]
    NoAction,
    /// A number of days or versions below one.
    #[error("'{element}' for {action} action must be a positive integer")]
    NotPositive {
        /// The element, such as `Days`.
        element: &'static str,
        /// The action it stands in.
        action: &'static str,
    },
    /// More newer noncurrent versions than a rule may keep.
    #[error("'NewerNoncurrentVersions' for NoncurrentVersionExpiration action must be between 1 and {NEWER_MAX}")]
    NewerTooMany,
    /// A date with a time of day.
    #[error("'Date' must be at midnight GMT")]
    NotMidnight,
    /// An action that needs a filter without tags has one with tags.
    #[error("{0} cannot be specified with Tags.")]
    WithTags(&'static str),
    /// An action that needs a filter without sizes has one with sizes.
    #[error("{0} cannot be specified with Object Size.")]
    WithSize(&'static str),
}

/// Bytes at rest that are no configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a lifecycle configuration of a known format")]
pub struct FormatError;
