//! Rules as tables, and random configurations against a reading of the documentation that knows no shortcut.

use crate::*;
use proptest::prelude::*;
use std::time::Duration;
use valv_types::TimestampMicros;

const DAY_MICROS: u64 = 86_400_000_000;

fn prefix(prefix: &str) -> Scope {
    Scope::Filter(Filter::new(FilterForm::Single, Some(prefix.to_owned()), vec![], SizeBounds::default()).unwrap())
}

fn tag(key: &str) -> (String, String) {
    (key.to_owned(), "v".to_owned())
}

fn expiring(id: &str, scope: Scope, days: i64) -> Rule {
    let expiration = Some(Expiration::days(days).unwrap());
    Rule::new(id.to_owned(), Status::Enabled, scope, expiration, None, None).unwrap()
}

fn configuration(rules: Vec<Rule>) -> Configuration {
    Configuration::new(rules, MinimumSize::default()).unwrap()
}

fn current(key: &[u8], modified: TimestampMicros) -> Version<'_> {
    Version {
        key,
        len_bytes: 5,
        tags: &[],
        modified,
        is_delete_marker: false,
        standing: Standing::Current { is_only: true },
    }
}

#[test]
fn the_earliest_date_wins_and_then_the_first_rule() {
    let rules =
        configuration(vec![expiring("a", prefix(""), 3), expiring("b", prefix("x"), 2), expiring("c", prefix("x"), 2)]);
    let at = |key: &[u8]| {
        let scheduled = rules.schedule(&current(key, TimestampMicros(1)), DayLength::CALENDAR).unwrap();
        (scheduled.at.0 / DAY_MICROS, scheduled.rule.id().to_owned())
    };
    assert_eq!(at(b"y"), (4, "a".to_owned()));
    assert_eq!(at(b"xy"), (3, "b".to_owned()));
}

#[test]
fn a_lone_delete_marker_goes_at_once_or_when_it_is_old_enough() {
    let marker =
        |expiration, status| Rule::new("m".to_owned(), status, prefix(""), Some(expiration), None, None).unwrap();
    let version = |is_only| Version {
        is_delete_marker: true,
        len_bytes: 0,
        standing: Standing::Current { is_only },
        ..current(b"k", TimestampMicros(7))
    };
    let of = |expiration, status, is_only| {
        let rules = configuration(vec![marker(expiration, status)]);
        rules.schedule(&version(is_only), DayLength::CALENDAR).map(|found| (found.removal, found.at.0))
    };
    let gone = |at| Some((Removal::RemoveMarker, at));
    let days = Expiration::days(1).unwrap();
    assert_eq!(of(Expiration::DeleteMarker(true), Status::Enabled, true), gone(7));
    assert_eq!(of(Expiration::DeleteMarker(true), Status::Enabled, false), None);
    assert_eq!(of(Expiration::DeleteMarker(false), Status::Enabled, true), None);
    assert_eq!(of(Expiration::DeleteMarker(true), Status::Disabled, true), None);
    assert_eq!(of(days, Status::Enabled, true), gone(2 * DAY_MICROS));
    assert_eq!(of(Expiration::date(TimestampMicros(0)).unwrap(), Status::Enabled, true), gone(0));
    let small = Filter::new(FilterForm::Single, None, vec![], SizeBounds::new(None, Some(1)).unwrap()).unwrap();
    let small = configuration(vec![expiring("s", Scope::Filter(small), 1)]);
    assert!(small.schedule(&version(true), DayLength::CALENDAR).is_none());
}

#[test]
fn so_many_newer_noncurrent_versions_are_kept_as_the_rule_says() {
    let noncurrent = NoncurrentExpiration::new(1, Some(2)).unwrap();
    let rule = Rule::new("n".to_owned(), Status::Enabled, prefix(""), None, Some(noncurrent), None).unwrap();
    let rules = configuration(vec![rule]);
    for (newer, goes) in [(0, false), (1, false), (2, true), (3, true)] {
        let standing = Standing::Noncurrent { since: TimestampMicros(0), newer };
        let version = Version { standing, ..current(b"k", TimestampMicros(0)) };
        let due = rules.due(&version, TimestampMicros(DAY_MICROS), DayLength::CALENDAR);
        assert_eq!(due.map(|due| due.removal), goes.then_some(Removal::RemoveNoncurrent), "{newer}");
        assert!(rules.due(&version, TimestampMicros(DAY_MICROS - 1), DayLength::CALENDAR).is_none());
    }
}

#[test]
fn what_s3_refuses_is_refused() {
    use RuleError::*;
    let single = |prefix: Option<&str>, tags: Vec<_>, sizes| {
        Filter::new(FilterForm::Single, prefix.map(str::to_owned), tags, sizes)
    };
    let and = |prefix: Option<&str>, tags: Vec<_>| {
        Filter::new(FilterForm::And, prefix.map(str::to_owned), tags, SizeBounds::default())
    };
    let sizes = SizeBounds::new(Some(1), Some(3)).unwrap();
    assert_eq!(single(None, vec![], sizes), Err(MalformedFilter));
    assert_eq!(single(Some(""), vec![tag("a")], SizeBounds::default()), Err(MalformedFilter));
    assert_eq!(and(Some("p"), vec![]), Err(MalformedFilter));
    assert_eq!(and(None, vec![tag("a"), tag("a")]), Err(TagTwice));
    assert_eq!(and(Some("p"), vec![tag("")]), Err(TagWithoutKey));
    assert_eq!(and(None, (0..11).map(|i| tag(&i.to_string())).collect()), Err(TooManyTags));
    assert_eq!(single(Some(&"p".repeat(1_025)), vec![], SizeBounds::default()), Err(PrefixTooLong));
    assert!(single(None, vec![], SizeBounds::default()).is_ok());
    assert_eq!(SizeBounds::new(Some(3), Some(3)), Err(SizeOrder));
    assert_eq!(SizeBounds::new(Some(-1), None), Err(LargerThanRange));
    assert_eq!(SizeBounds::new(None, Some(0)), Err(SmallerThanRange));
    assert_eq!(Expiration::days(0), Err(NotPositive { element: "Days", action: "Expiration" }));
    assert_eq!(Expiration::date(TimestampMicros(1)), Err(NotMidnight));
    assert_eq!(NoncurrentExpiration::new(1, Some(101)), Err(NewerTooMany));
    assert!(matches!(NoncurrentExpiration::new(0, None), Err(NotPositive { .. })));
    assert!(matches!(NoncurrentExpiration::new(1, Some(0)), Err(NotPositive { .. })));
    assert!(matches!(Rule::abort_days(0), Err(NotPositive { .. })));

    let rule = |id: &str, scope, expiration, noncurrent, abort| {
        Rule::new(id.to_owned(), Status::Enabled, scope, expiration, noncurrent, abort)
    };
    let days = Some(Expiration::days(1).unwrap());
    let abort = Some(Rule::abort_days(1).unwrap());
    let tagged = || Scope::Filter(single(None, vec![tag("a")], SizeBounds::default()).unwrap());
    let sized = || Scope::Filter(single(None, vec![], SizeBounds::new(Some(1), None).unwrap()).unwrap());
    let legacy = |prefix: &str| Scope::Prefix(prefix.to_owned());
    let newer = Some(NoncurrentExpiration::new(1, Some(1)).unwrap());
    assert_eq!(rule("a", legacy(""), None, None, None), Err(NoAction));
    assert_eq!(rule(&"ä".repeat(256), legacy(""), days, None, None), Err(IdTooLong));
    assert!(rule(&"ä".repeat(255), legacy(""), days, None, None).is_ok());
    assert_eq!(rule("a", legacy(""), None, newer, None), Err(NewerWithoutFilter));
    assert_eq!(rule("a", tagged(), None, None, abort), Err(WithTags("AbortIncompleteMultipartUpload")));
    assert_eq!(rule("a", sized(), None, None, abort), Err(WithSize("AbortIncompleteMultipartUpload")));
    let marker = Some(Expiration::DeleteMarker(false));
    assert_eq!(rule("a", tagged(), marker, None, None), Err(WithTags("ExpiredObjectDeleteMarker")));
    assert_eq!(rule("a", sized(), marker, None, None), Err(WithSize("ExpiredObjectDeleteMarker")));

    let all = |rules| Configuration::new(rules, MinimumSize::default());
    let legacy = |id: &str, of: &str| rule(id, legacy(of), days, None, None).unwrap();
    assert_eq!(all(vec![]), Err(NoRules));
    assert_eq!(all((0..1_001).map(|i| expiring(&i.to_string(), prefix(""), 1)).collect()), Err(TooManyRules));
    assert_eq!(all(vec![expiring("a", prefix(""), 1), expiring("a", prefix(""), 2)]), Err(IdTwice));
    assert_eq!(all(vec![expiring("a", prefix(""), 1), legacy("b", "")]), Err(PrefixAmongFilters));
    assert_eq!(all(vec![legacy("b", ""), expiring("a", prefix(""), 1)]), Err(FilterAmongPrefixes));
    let overlap = OverlappingPrefixes("a".to_owned(), "ab".to_owned(), "Expiration");
    assert_eq!(all(vec![legacy("1", "ab"), legacy("2", "b"), legacy("3", "a")]), Err(overlap));
    assert!(all(vec![legacy("1", "a/"), legacy("2", "b/")]).is_ok());
}

#[test]
fn a_configuration_at_rest_keeps_its_bytes() {
    let filter = Filter::new(
        FilterForm::And,
        Some("p/".to_owned()),
        vec![("k".to_owned(), "v".to_owned())],
        SizeBounds::new(Some(7), None).unwrap(),
    );
    let rules = vec![
        expiring("one", Scope::Filter(filter.unwrap()), 30),
        Rule::new(
            "two".to_owned(),
            Status::Disabled,
            prefix(""),
            Some(Expiration::DeleteMarker(true)),
            Some(NoncurrentExpiration::new(2, Some(3)).unwrap()),
            Some(Rule::abort_days(4).unwrap()),
        )
        .unwrap(),
    ];
    let configuration = Configuration::new(rules, MinimumSize::ByClass).unwrap();
    let hex: String = configuration.encode().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, GOLDEN);
    assert_eq!(Configuration::decode(&configuration.encode()), Ok(configuration));
    assert_eq!(Configuration::decode(&[]), Err(FormatError));
    assert_eq!(Configuration::decode(&[2, 0x80]), Err(FormatError));
}

/// Format 1. Never to be generated anew: a reader reads what was ever written.
const GOLDEN: &str =
    "01828284636f6e6500820181840162702f8182616b61768107820081181e866374776f018201818400608080820281f58202030401";

fn scope() -> impl Strategy<Value = Scope> {
    let tags = prop::sample::subsequence(vec![tag("a"), tag("b"), ("a".to_owned(), "w".to_owned())], 0..2);
    let sizes = (prop::option::weighted(0.3, 0..6i64), prop::option::weighted(0.3, 6..9i64));
    (prop::option::of("[ab]{0,2}"), tags, sizes).prop_map(|(prefix, tags, (larger, smaller))| {
        let sizes = SizeBounds::new(larger, smaller).unwrap();
        let single = Filter::new(FilterForm::Single, prefix.clone(), tags.clone(), sizes);
        Scope::Filter(single.or_else(|_| Filter::new(FilterForm::And, prefix, tags, sizes)).unwrap())
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    let expiration = prop_oneof![
        (1..5i64).prop_map(|days| Expiration::days(days).unwrap()),
        (0..5u64).prop_map(|days| Expiration::date(TimestampMicros(days * DAY_MICROS)).unwrap()),
        any::<bool>().prop_map(Expiration::DeleteMarker),
    ];
    let noncurrent =
        (1..5i64, prop::option::of(1..4i64)).prop_map(|(days, newer)| NoncurrentExpiration::new(days, newer).unwrap());
    let status = prop_oneof![4 => Just(Status::Enabled), 1 => Just(Status::Disabled)];
    let abort = prop::option::of((1..5i64).prop_map(|days| Rule::abort_days(days).unwrap()));
    (scope(), status, prop::option::of(expiration), prop::option::of(noncurrent), abort).prop_filter_map(
        "a rule that S3 accepts",
        |(scope, status, expiration, noncurrent, abort)| {
            Rule::new(String::new(), status, scope, expiration, noncurrent, abort).ok()
        },
    )
}

fn rules() -> impl Strategy<Value = Configuration> {
    prop::collection::vec(rule(), 1..6).prop_map(|rules| {
        let named = rules.into_iter().enumerate().map(|(at, rule)| {
            let (scope, expiration) = (rule.scope().clone(), rule.expiration());
            Rule::new(format!("{at}"), rule.status(), scope, expiration, rule.noncurrent(), rule.abort()).unwrap()
        });
        Configuration::new(named.collect(), MinimumSize::default()).unwrap()
    })
}

/// The first midnight at or after `days` days from `start`, found by looking at one after the other.
fn naive_end(start: TimestampMicros, days: u32, day: DayLength) -> u64 {
    let mut end = start.0;
    for _ in 0..days {
        end += day.length().as_micros() as u64;
    }
    if day == DayLength::CALENDAR {
        let mut midnight = 0;
        while midnight < end {
            midnight += DAY_MICROS;
        }
        end = midnight;
    }
    end
}

/// The documentation, read sentence by sentence.
fn naive<'c>(rules: &'c Configuration, version: &Version<'_>, day: DayLength) -> Option<(Removal, u64, &'c str)> {
    let mut best: Option<(Removal, u64, &str)> = None;
    for rule in rules.rules() {
        if rule.status() == Status::Disabled {
            continue;
        }
        let Scope::Filter(filter) = rule.scope() else { unreachable!() };
        if let Some(prefix) = filter.prefix()
            && !version.key.starts_with(prefix.as_bytes())
        {
            continue;
        }
        if filter.tags().iter().any(|tag| !version.tags.iter().any(|has| has == tag)) {
            continue;
        }
        if filter.sizes().larger_than().is_some_and(|bound| version.len_bytes <= bound)
            || filter.sizes().smaller_than().is_some_and(|bound| version.len_bytes >= bound)
        {
            continue;
        }
        let is_plain =
            filter.tags().is_empty() && filter.sizes().larger_than().or(filter.sizes().smaller_than()).is_none();
        let planned = match (version.standing, version.is_delete_marker) {
            (Standing::Current { .. }, false) => match rule.expiration() {
                Some(Expiration::Days(days)) => Some((Removal::Expire, naive_end(version.modified, days.get(), day))),
                Some(Expiration::Date(date)) => Some((Removal::Expire, date.0)),
                _ => None,
            },
            (Standing::Current { is_only: true }, true) if is_plain => match rule.expiration() {
                Some(Expiration::DeleteMarker(true)) => Some((Removal::RemoveMarker, version.modified.0)),
                Some(Expiration::Days(days)) => {
                    Some((Removal::RemoveMarker, naive_end(version.modified, days.get(), day)))
                }
                Some(Expiration::Date(date)) => Some((Removal::RemoveMarker, date.0)),
                _ => None,
            },
            (Standing::Current { .. }, true) => None,
            (Standing::Noncurrent { since, newer }, _) => match rule.noncurrent() {
                Some(noncurrent) if newer >= noncurrent.newer().unwrap_or(0) => {
                    Some((Removal::RemoveNoncurrent, naive_end(since, noncurrent.days(), day)))
                }
                _ => None,
            },
        };
        if let Some((removal, at)) = planned
            && best.is_none_or(|(_, earliest, _)| at < earliest)
        {
            best = Some((removal, at, rule.id()));
        }
    }
    best
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_version_under_any_rules_goes_when_the_documentation_says(
        rules in rules(),
        key in "[ab]{1,3}",
        len_bytes in 0..9u64,
        tags in prop::sample::subsequence(vec![tag("a"), tag("b"), tag("c")], 0..=3),
        modified in 0..3 * DAY_MICROS,
        is_delete_marker in any::<bool>(),
        standing in prop_oneof![
            any::<bool>().prop_map(|is_only| Standing::Current { is_only }),
            (0..3 * DAY_MICROS, 0..5u32)
                .prop_map(|(since, newer)| Standing::Noncurrent { since: TimestampMicros(since), newer }),
        ],
        is_short in any::<bool>(),
        now in 0..9 * DAY_MICROS,
    ) {
        let day = if is_short { DayLength::new(Duration::from_secs(3_600)).unwrap() } else { DayLength::CALENDAR };
        let (len_bytes, tags) = if is_delete_marker { (0, vec![]) } else { (len_bytes, tags) };
        let modified = TimestampMicros(modified);
        let version = Version { key: key.as_bytes(), len_bytes, tags: &tags, modified, is_delete_marker, standing };
        let expected = naive(&rules, &version, day);
        let found = rules.schedule(&version, day);
        prop_assert_eq!(found.map(|found| (found.removal, found.at.0, found.rule.id())), expected);
        let due = rules.due(&version, TimestampMicros(now), day).is_some();
        prop_assert_eq!(due, expected.is_some_and(|(_, at, _)| at <= now));
        // Whoever skips what these say is not needed misses nothing.
        if expected.is_some() {
            prop_assert!(rules.concerns_versions());
            prop_assert!(key.as_bytes().starts_with(rules.common_prefix()));
        }
        let untagged = Version { tags: &[], ..version };
        if !rules.needs_tags(&untagged, TimestampMicros(now), day) {
            prop_assert_eq!(rules.due(&untagged, TimestampMicros(now), day).is_some(), due);
        }
        let abort = rules.abort(key.as_bytes(), modified, day);
        let earliest = rules.rules().iter().filter(|rule| rule.status() == Status::Enabled);
        let earliest = earliest.filter(|rule| {
            let Scope::Filter(filter) = rule.scope() else { unreachable!() };
            key.starts_with(filter.prefix().unwrap_or(""))
        });
        let earliest = earliest.filter_map(|rule| Some(naive_end(modified, rule.abort()?.get(), day))).min();
        prop_assert_eq!(abort.map(|(at, _)| at.0), earliest);
        prop_assert!(abort.is_none() || rules.concerns_uploads());
        prop_assert_eq!(Configuration::decode(&rules.encode()), Ok(rules));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..80), rules in rules(), at in 0..200usize) {
        let _ = Configuration::decode(&bytes);
        bytes.insert(0, 1);
        let _ = Configuration::decode(&bytes);
        let mut damaged = rules.encode();
        let at = at % damaged.len();
        damaged[at] ^= 1 << (at % 8);
        let _ = Configuration::decode(&damaged);
        damaged.truncate(at);
        let _ = Configuration::decode(&damaged);
    }
}
