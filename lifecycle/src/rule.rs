//! What a configuration says: rules whose constructors refuse what S3 refuses, and their bytes at rest.
//!
//! At rest a configuration is a format byte and a CBOR item with numbered fields, as every record of the metadata
//! service (`docs/format-metadata.md`, "Lifecycle configuration").

use crate::day::DayLength;
use crate::error::{FormatError, RuleError};
use minicbor::{Decode, Encode};
use std::collections::HashSet;
use valv_types::TimestampMicros;

/// Most rules of a configuration (S3 user guide, "Lifecycle configuration elements").
pub const RULES_MAX: usize = 1_000;
/// Longest id of a rule, in characters.
pub const ID_CHARS_MAX: usize = 255;
/// Longest prefix: a key has no more bytes.
pub(crate) const PREFIX_LEN_BYTES_MAX: usize = 1_024;
/// Most tags of a filter: an object has no more.
pub(crate) const TAGS_MAX: usize = 10;
/// Largest size that a filter may name: S3's message states it.
pub(crate) const SIZE_BYTES_MAX: u64 = 1_099_511_627_776_000;
/// Most newer noncurrent versions that a rule may keep.
pub(crate) const NEWER_MAX: i64 = 100;
/// The first byte at rest.
const FORMAT: u8 = 1;

/// A number of days, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Days(#[n(0)] u32);

impl Days {
    /// Takes a number of days as a document states it; `action` and `element` are for the error. More days than there
    /// are numbers for never pass anyway.
    ///
    /// # Errors
    /// [`RuleError::NotPositive`].
    pub fn new(days: i64, element: &'static str, action: &'static str) -> Result<Self, RuleError> {
        if days < 1 {
            return Err(RuleError::NotPositive { element, action });
        }
        Ok(Self(u32::try_from(days).unwrap_or(u32::MAX)))
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// When current versions expire, or delete markers go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Expiration {
    /// So many days after creation.
    #[n(0)]
    Days(#[n(0)] Days),
    /// From this midnight on.
    #[n(1)]
    Date(#[n(0)] TimestampMicros),
    /// Delete markers that have no versions under them go; `false` says nothing at all, and S3 keeps that too.
    #[n(2)]
    DeleteMarker(#[n(0)] bool),
}

impl Expiration {
    const ACTION: &'static str = "Expiration";
    const MARKER: &'static str = "ExpiredObjectDeleteMarker";

    /// After a number of days.
    ///
    /// # Errors
    /// [`RuleError::NotPositive`].
    pub fn days(days: i64) -> Result<Self, RuleError> {
        Days::new(days, "Days", Self::ACTION).map(Self::Days)
    }

    /// From a date on.
    ///
    /// # Errors
    /// [`RuleError::NotMidnight`].
    pub fn date(date: TimestampMicros) -> Result<Self, RuleError> {
        if DayLength::is_midnight(date) { Ok(Self::Date(date)) } else { Err(RuleError::NotMidnight) }
    }
}

/// When noncurrent versions are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct NoncurrentExpiration {
    #[n(0)]
    days: Days,
    #[n(1)]
    newer: Option<u32>,
}

impl NoncurrentExpiration {
    const ACTION: &'static str = "NoncurrentVersionExpiration";

    /// So many days after a newer version took a version's place, if at least `newer` noncurrent versions of the key are
    /// newer.
    ///
    /// # Errors
    /// [`RuleError::NotPositive`], [`RuleError::NewerTooMany`].
    pub fn new(days: i64, newer: Option<i64>) -> Result<Self, RuleError> {
        let days = Days::new(days, "NoncurrentDays", Self::ACTION)?;
        let newer = match newer {
            None => None,
            Some(newer) if newer < 1 => {
                return Err(RuleError::NotPositive { element: "NewerNoncurrentVersions", action: Self::ACTION });
            }
            Some(newer) if newer > NEWER_MAX => return Err(RuleError::NewerTooMany),
            Some(newer) => u32::try_from(newer).ok(),
        };
        Ok(Self { days, newer })
    }

    /// After how many days.
    pub const fn days(self) -> u32 {
        self.days.get()
    }

    /// How many newer noncurrent versions are kept, if the rule says.
    pub const fn newer(self) -> Option<u32> {
        self.newer
    }
}

/// Bounds of sizes, both exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct SizeBounds {
    #[n(0)]
    larger_than: Option<u64>,
    #[n(1)]
    smaller_than: Option<u64>,
}

impl SizeBounds {
    /// Bounds as a document states them.
    ///
    /// # Errors
    /// [`RuleError::LargerThanRange`], [`RuleError::SmallerThanRange`], [`RuleError::SizeOrder`].
    pub fn new(larger_than: Option<i64>, smaller_than: Option<i64>) -> Result<Self, RuleError> {
        let within =
            |bound: i64, least: u64| u64::try_from(bound).ok().filter(|bound| (least..=SIZE_BYTES_MAX).contains(bound));
        let larger_than = larger_than.map(|bound| within(bound, 0).ok_or(RuleError::LargerThanRange)).transpose()?;
        let smaller_than = smaller_than.map(|bound| within(bound, 1).ok_or(RuleError::SmallerThanRange)).transpose()?;
        match (larger_than, smaller_than) {
            (Some(larger), Some(smaller)) if smaller <= larger => Err(RuleError::SizeOrder),
            _ => Ok(Self { larger_than, smaller_than }),
        }
    }

    /// Larger than this, in bytes.
    pub const fn larger_than(self) -> Option<u64> {
        self.larger_than
    }

    /// Smaller than this, in bytes.
    pub const fn smaller_than(self) -> Option<u64> {
        self.smaller_than
    }

    fn is_empty(self) -> bool {
        self == Self::default()
    }

    fn admits(self, len_bytes: u64) -> bool {
        self.larger_than.is_none_or(|bound| len_bytes > bound)
            && self.smaller_than.is_none_or(|bound| len_bytes < bound)
    }
}

/// How a filter's predicates stand in the document, so that it is given back as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum FilterForm {
    /// At most one predicate, in the Filter itself.
    #[n(0)]
    Single,
    /// Several, in an And.
    #[n(1)]
    And,
}

/// What a rule applies to: all predicates must hold.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Filter {
    #[n(0)]
    form: FilterForm,
    #[n(1)]
    prefix: Option<String>,
    #[n(2)]
    tags: Vec<(String, String)>,
    #[n(3)]
    sizes: SizeBounds,
}

impl Filter {
    /// A filter as a document states it.
    ///
    /// # Errors
    /// What is wrong with its form, its prefix or its tags.
    pub fn new(
        form: FilterForm,
        prefix: Option<String>,
        tags: Vec<(String, String)>,
        sizes: SizeBounds,
    ) -> Result<Self, RuleError> {
        let bounds = [sizes.larger_than, sizes.smaller_than].into_iter().flatten().count();
        let predicates = usize::from(prefix.is_some()) + tags.len() + bounds;
        let is_well_formed = match form {
            FilterForm::Single => predicates <= 1,
            FilterForm::And => predicates >= 2,
        };
        if !is_well_formed {
            return Err(RuleError::MalformedFilter);
        }
        if let Some(prefix) = &prefix {
            check_prefix(prefix)?;
        }
        if tags.len() > TAGS_MAX {
            return Err(RuleError::TooManyTags);
        }
        let mut keys = HashSet::new();
        for (key, _) in &tags {
            if key.is_empty() {
                return Err(RuleError::TagWithoutKey);
            }
            if !keys.insert(key) {
                return Err(RuleError::TagTwice);
            }
        }
        Ok(Self { form, prefix, tags, sizes })
    }

    /// Its form.
    pub const fn form(&self) -> FilterForm {
        self.form
    }

    /// Its prefix, if it names one.
    pub fn prefix(&self) -> Option<&str> {
        self.prefix.as_deref()
    }

    /// Its tags.
    pub fn tags(&self) -> &[(String, String)] {
        &self.tags
    }

    /// Its bounds of sizes.
    pub const fn sizes(&self) -> SizeBounds {
        self.sizes
    }
}

fn check_prefix(prefix: &str) -> Result<(), RuleError> {
    if prefix.len() > PREFIX_LEN_BYTES_MAX { Err(RuleError::PrefixTooLong) } else { Ok(()) }
}

/// How a rule says what it applies to.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Scope {
    /// By a prefix of its own: S3's first form.
    #[n(0)]
    Prefix(#[n(0)] String),
    /// By a filter.
    #[n(1)]
    Filter(#[n(0)] Filter),
}

impl Scope {
    /// The prefix that keys must have; empty if any key will do.
    pub(crate) fn prefix(&self) -> &str {
        match self {
            Self::Prefix(prefix) => prefix,
            Self::Filter(filter) => filter.prefix.as_deref().unwrap_or_default(),
        }
    }

    pub(crate) fn tags(&self) -> &[(String, String)] {
        match self {
            Self::Prefix(_) => &[],
            Self::Filter(filter) => &filter.tags,
        }
    }

    fn sizes(&self) -> SizeBounds {
        match self {
            Self::Prefix(_) => SizeBounds::default(),
            Self::Filter(filter) => filter.sizes,
        }
    }

    pub(crate) fn admits_key(&self, key: &[u8]) -> bool {
        key.starts_with(self.prefix().as_bytes())
    }

    pub(crate) fn admits_size(&self, len_bytes: u64) -> bool {
        self.sizes().admits(len_bytes)
    }

    pub(crate) fn admits_tags(&self, tags: &[(String, String)]) -> bool {
        self.tags().iter().all(|wanted| tags.contains(wanted))
    }

    /// Whether it looks at keys alone.
    pub(crate) fn is_of_keys(&self) -> bool {
        self.tags().is_empty() && self.sizes().is_empty()
    }
}

/// Whether a rule is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Status {
    /// It is.
    #[n(0)]
    Enabled,
    /// It is kept, and nothing happens.
    #[n(1)]
    Disabled,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Rule {
    #[n(0)]
    id: String,
    #[n(1)]
    status: Status,
    #[n(2)]
    scope: Scope,
    #[n(3)]
    expiration: Option<Expiration>,
    #[n(4)]
    noncurrent: Option<NoncurrentExpiration>,
    #[n(5)]
    abort: Option<Days>,
}

impl Rule {
    const ABORT: &'static str = "AbortIncompleteMultipartUpload";

    /// A rule as a document states it.
    ///
    /// # Errors
    /// That it has no action, or one that does not go with its scope; that its id is too long.
    pub fn new(
        id: String,
        status: Status,
        scope: Scope,
        expiration: Option<Expiration>,
        noncurrent: Option<NoncurrentExpiration>,
        abort: Option<Days>,
    ) -> Result<Self, RuleError> {
        if id.chars().count() > ID_CHARS_MAX {
            return Err(RuleError::IdTooLong);
        }
        if let Scope::Prefix(prefix) = &scope {
            check_prefix(prefix)?;
            if noncurrent.is_some_and(|noncurrent| noncurrent.newer.is_some()) {
                return Err(RuleError::NewerWithoutFilter);
            }
        }
        if expiration.is_none() && noncurrent.is_none() && abort.is_none() {
            return Err(RuleError::NoAction);
        }
        let is_of_markers = matches!(expiration, Some(Expiration::DeleteMarker(_)));
        for (is_there, action) in [(is_of_markers, Expiration::MARKER), (abort.is_some(), Self::ABORT)] {
            if is_there && !scope.tags().is_empty() {
                return Err(RuleError::WithTags(action));
            }
            if is_there && !scope.sizes().is_empty() {
                return Err(RuleError::WithSize(action));
            }
        }
        Ok(Self { id, status, scope, expiration, noncurrent, abort })
    }

    /// The days of AbortIncompleteMultipartUpload.
    ///
    /// # Errors
    /// [`RuleError::NotPositive`].
    pub fn abort_days(days: i64) -> Result<Days, RuleError> {
        Days::new(days, "DaysAfterInitiation", Self::ABORT)
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether it is carried out.
    pub const fn status(&self) -> Status {
        self.status
    }

    /// What it applies to.
    pub const fn scope(&self) -> &Scope {
        &self.scope
    }

    /// What happens to current versions.
    pub const fn expiration(&self) -> Option<Expiration> {
        self.expiration
    }

    /// What happens to noncurrent versions.
    pub const fn noncurrent(&self) -> Option<NoncurrentExpiration> {
        self.noncurrent
    }

    /// What happens to uploads that nobody finishes.
    pub const fn abort(&self) -> Option<Days> {
        self.abort
    }
}

/// `x-amz-transition-default-minimum-object-size`. Nothing is ever moved to another storage class here, so it changes
/// nothing; it is kept so that a configuration reads back as it was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(index_only)]
pub enum MinimumSize {
    /// `all_storage_classes_128K`: S3's default.
    #[default]
    #[n(0)]
    AllClasses,
    /// `varies_by_storage_class`.
    #[n(1)]
    ByClass,
}

/// A bucket's rules, in the order given.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Configuration {
    #[n(0)]
    rules: Vec<Rule>,
    #[n(1)]
    minimum_size: MinimumSize,
}

/// Names one of a rule's actions and says whether a rule has it.
type ActionOf = (&'static str, fn(&Rule) -> bool);

impl Configuration {
    /// Puts rules together.
    ///
    /// # Errors
    /// What is wrong with their number, their ids or how they go together.
    pub fn new(rules: Vec<Rule>, minimum_size: MinimumSize) -> Result<Self, RuleError> {
        if rules.len() > RULES_MAX {
            return Err(RuleError::TooManyRules);
        }
        let mut ids = HashSet::new();
        if !rules.iter().all(|rule| ids.insert(rule.id.as_str())) {
            return Err(RuleError::IdTwice);
        }
        let Some(first) = rules.first() else { return Err(RuleError::NoRules) };
        // The first rule says which of S3's two forms the document has, and all rules have that form.
        let has_filters = matches!(first.scope, Scope::Filter(_));
        for rule in &rules {
            match (&rule.scope, has_filters) {
                (Scope::Prefix(_), true) => return Err(RuleError::PrefixAmongFilters),
                (Scope::Filter(_), false) => return Err(RuleError::FilterAmongPrefixes),
                (Scope::Prefix(_), false) | (Scope::Filter(_), true) => {}
            }
        }
        if !has_filters {
            check_overlaps(&rules)?;
        }
        Ok(Self { rules, minimum_size })
    }

    /// The rules.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The setting for transitions.
    pub const fn minimum_size(&self) -> MinimumSize {
        self.minimum_size
    }

    /// The bytes at rest.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        match minicbor::encode(self, &mut out) {
            Ok(()) => out,
            // Writing to a Vec is infallible, and no type here has an encoder of its own that refuses a value.
            Err(_) => unreachable!("rules are encoded into memory"),
        }
    }

    /// Reads the bytes at rest. They were judged when they were set and are not judged again: a rule that a later version
    /// would refuse goes on to mean what it meant.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        match bytes.split_first() {
            Some((&FORMAT, body)) => minicbor::decode(body).map_err(|_| FormatError),
            _ => Err(FormatError),
        }
    }
}

/// In S3's first form, prefixes of rules with the same action must not begin with each other.
fn check_overlaps(rules: &[Rule]) -> Result<(), RuleError> {
    let actions: [ActionOf; 3] = [
        (Expiration::ACTION, |rule| rule.expiration.is_some()),
        (NoncurrentExpiration::ACTION, |rule| rule.noncurrent.is_some()),
        (Rule::ABORT, |rule| rule.abort.is_some()),
    ];
    for (action, has) in actions {
        let mut prefixes: Vec<_> = rules.iter().filter(|rule| has(rule)).map(|rule| rule.scope.prefix()).collect();
        // Sorted, a prefix that begins any other begins its neighbour.
        prefixes.sort_unstable();
        for pair in prefixes.windows(2) {
            if let [short, long] = pair
                && long.starts_with(short)
            {
                return Err(RuleError::OverlappingPrefixes((*short).to_owned(), (*long).to_owned(), action));
            }
        }
    }
    Ok(())
}
