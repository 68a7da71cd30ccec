//! Text with wildcards and policy variables, matched without backtracking trees.
//!
//! `*` stands for any run of characters and `?` for one. Variables (`${aws:username}`, `${key, 'default'}`) are replaced
//! by what the request says, taken literally: a user called `*` is no wildcard. `${*}`, `${?}` and `${$}` are those
//! characters themselves. Source: "IAM policy elements: Variables and tags".
//!
//! The matcher remembers one star only: when what follows it fails, the star takes one character more. That is enough for
//! patterns of stars and literals, and costs at most pattern times subject: no text makes it exponential.

use std::borrow::Cow;

/// A piece of a pattern, four bytes long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// `?`
    One,
    /// `*`
    Many,
    /// By its index among the pattern's variables.
    Variable(u16),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Variable {
    /// Normalised as condition keys are.
    key: String,
    default: Option<String>,
}

/// What the request says of a variable's key: exactly one value, or nothing that a variable could stand for.
pub(crate) trait Variables {
    fn variable(&self, key: &str) -> Option<String>;

    /// Takes from what one evaluation may cost, in comparisons of one byte; `false` if that is used up.
    fn spend(&self, steps: usize) -> bool;
}

/// What a byte that a variable brings costs, in steps: it becomes a token and is allocated.
const STEPS_PER_EXPANDED_BYTE: usize = 16;

/// Whether `*` and `?` are wildcards in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wildcards {
    Yes,
    No,
}

/// Whether `${...}` is a variable in a text: since version 2012-10-17 of the language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expansion {
    Yes,
    No,
}

/// A variable was not closed, or has no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadVariable;

/// A text with wildcards and variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    tokens: Vec<Token>,
    variables: Vec<Variable>,
}

impl Pattern {
    pub(crate) fn parse(text: &str, wildcards: Wildcards, expansion: Expansion) -> Result<Self, BadVariable> {
        let mut pattern = Self { tokens: Vec::with_capacity(text.len()), variables: Vec::new() };
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if expansion == Expansion::Yes && rest.starts_with("${") {
                let end = rest.find('}').ok_or(BadVariable)?;
                pattern.push_variable(&rest[2..end])?;
                rest = &rest[end + 1..];
                continue;
            }
            let (char_text, after) = rest.split_at(first.len_utf8());
            match (wildcards, first) {
                // Several stars are one.
                (Wildcards::Yes, '*') if pattern.tokens.last() == Some(&Token::Many) => {}
                (Wildcards::Yes, '*') => pattern.tokens.push(Token::Many),
                (Wildcards::Yes, '?') => pattern.tokens.push(Token::One),
                _ => pattern.tokens.extend(char_text.bytes().map(Token::Byte)),
            }
            rest = after;
        }
        Ok(pattern)
    }

    fn push_variable(&mut self, inner: &str) -> Result<(), BadVariable> {
        if let "*" | "?" | "$" = inner {
            self.tokens.extend(inner.bytes().map(Token::Byte));
            return Ok(());
        }
        let (key, default) = match inner.split_once(',') {
            None => (inner, None),
            Some((key, default)) => {
                let quoted = default.trim().strip_prefix('\'').and_then(|text| text.strip_suffix('\''));
                (key, Some(quoted.ok_or(BadVariable)?.to_owned()))
            }
        };
        let key = key.trim();
        if key.is_empty() || !key.contains(':') {
            return Err(BadVariable);
        }
        // Never more than a policy of 20 KiB has room for.
        let index = u16::try_from(self.variables.len()).map_err(|_| BadVariable)?;
        self.variables.push(Variable { key: normalise_key(key), default });
        self.tokens.push(Token::Variable(index));
        Ok(())
    }

    /// Whether it stands for one text only.
    pub(crate) fn is_fixed(&self) -> bool {
        self.tokens.iter().all(|token| matches!(token, Token::Byte(_)))
    }

    pub(crate) fn has_variables(&self) -> bool {
        !self.variables.is_empty()
    }

    /// The pattern with its variables replaced; `None` if one stands for nothing in this request.
    fn expand(&self, variables: &dyn Variables) -> Option<Cow<'_, [Token]>> {
        if self.variables.is_empty() {
            return Some(Cow::Borrowed(&self.tokens));
        }
        let mut tokens = Vec::with_capacity(self.tokens.len());
        for token in &self.tokens {
            match token {
                Token::Variable(index) => {
                    let variable = self.variables.get(usize::from(*index))?;
                    let value = variables.variable(&variable.key).or_else(|| variable.default.clone())?;
                    if !variables.spend(value.len().saturating_mul(STEPS_PER_EXPANDED_BYTE)) {
                        return None;
                    }
                    tokens.extend(value.bytes().map(Token::Byte));
                }
                other => tokens.push(*other),
            }
        }
        Some(Cow::Owned(tokens))
    }

    /// Whether `subject` fits; `None` if a variable stands for nothing in this request.
    pub(crate) fn matches(&self, subject: &[u8], variables: &dyn Variables) -> Option<bool> {
        let tokens = self.expand(variables)?;
        variables.spend(cost(&tokens, subject)).then(|| tokens_match(&tokens, subject))
    }

    /// As [`Self::matches`], for patterns without variables.
    pub(crate) fn fits(&self, subject: &[u8]) -> bool {
        tokens_match(&self.tokens, subject)
    }

    /// The text of a pattern without wildcards.
    pub(crate) fn text(&self, variables: &dyn Variables) -> Option<String> {
        let bytes: Vec<u8> = self
            .expand(variables)?
            .iter()
            .filter_map(|token| if let Token::Byte(byte) = token { Some(*byte) } else { None })
            .collect();
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// How many parts a colon separates, variables counted as text.
    pub(crate) fn colon_parts(&self) -> usize {
        1 + self.tokens.iter().filter(|token| **token == Token::Byte(b':')).count()
    }

    /// Part `index` of those that colons separate: whether it is text without wildcard and variable.
    pub(crate) fn colon_part_is_fixed(&self, index: usize) -> bool {
        self.tokens
            .split(|token| *token == Token::Byte(b':'))
            .nth(index)
            .is_some_and(|part| !part.is_empty() && part.iter().all(|token| matches!(token, Token::Byte(_))))
    }

    /// As [`Self::matches`], for ARNs: each of the six parts is matched alone, so that a wildcard in one never reaches
    /// over a colon into the next ("IAM JSON policy elements: Condition operators", ARN operators).
    pub(crate) fn matches_arn(&self, subject: &[u8], variables: &dyn Variables) -> Option<bool> {
        let tokens = self.expand(variables)?;
        if !variables.spend(cost(&tokens, subject)) {
            return None;
        }
        let mut patterns = tokens.splitn(ARN_PARTS, |token| *token == Token::Byte(b':'));
        let mut subjects = subject.splitn(ARN_PARTS, |byte| *byte == b':');
        for _ in 0..ARN_PARTS {
            match (patterns.next(), subjects.next()) {
                (Some(pattern), Some(subject)) if tokens_match(pattern, subject) => {}
                _ => return Some(false),
            }
        }
        Some(true)
    }

    /// Whether some text that begins with `prefix` could fit, whatever the variables stand for.
    pub(crate) fn could_match_prefix(&self, prefix: &[u8]) -> bool {
        !self.states_after(prefix).is_empty()
    }

    /// Whether `subject` could fit, whatever the variables stand for.
    pub(crate) fn could_match(&self, subject: &[u8]) -> bool {
        let is_run = |token: &Token| matches!(token, Token::Many | Token::Variable(_));
        self.states_after(subject).iter().any(|at| self.tokens[*at..].iter().all(is_run))
    }

    /// The places in the pattern at which one can be after `subject`, with variables taken for `*`.
    fn states_after(&self, subject: &[u8]) -> Vec<usize> {
        let len = self.tokens.len();
        let mut states = vec![false; len + 1];
        // What a run matches may be empty: one may stand behind it as well.
        let close = |states: &mut Vec<bool>| {
            for at in 0..len {
                if states[at] && matches!(self.tokens[at], Token::Many | Token::Variable(_)) {
                    states[at + 1] = true;
                }
            }
        };
        states[0] = true;
        close(&mut states);
        for byte in subject {
            let mut next = vec![false; len + 1];
            for at in (0..len).filter(|at| states[*at]) {
                match &self.tokens[at] {
                    Token::Byte(expected) if expected == byte => next[at + 1] = true,
                    Token::Byte(_) => {}
                    Token::One => next[at + 1] = true,
                    Token::Many | Token::Variable(_) => next[at] = true,
                }
            }
            close(&mut next);
            states = next;
        }
        states.iter().enumerate().filter_map(|(at, is_here)| is_here.then_some(at)).collect()
    }
}

/// `arn:partition:service:region:account:resource`.
pub(crate) const ARN_PARTS: usize = 6;

/// A key's name as it is compared: lower case up to the first `/`, behind which a tag's own name keeps its case.
pub(crate) fn normalise_key(key: &str) -> String {
    match key.split_once('/') {
        None => key.to_ascii_lowercase(),
        Some((name, tag)) => format!("{}/{tag}", name.to_ascii_lowercase()),
    }
}

/// How many bytes the first character of `text` has; a byte that is no UTF-8 counts as one character with what looks like
/// its continuation.
fn char_len(text: &[u8]) -> usize {
    const CONTINUATIONS_MAX: usize = 3;
    match text.first() {
        None => 0,
        Some(0..0x80) => 1,
        Some(_) => 1 + text[1..].iter().take(CONTINUATIONS_MAX).take_while(|byte| (0x80..0xc0).contains(*byte)).count(),
    }
}

/// The most steps that [`tokens_match`] can take.
fn cost(tokens: &[Token], subject: &[u8]) -> usize {
    if tokens.contains(&Token::Many) { tokens.len().saturating_mul(subject.len()) } else { tokens.len() }
}

fn tokens_match(tokens: &[Token], subject: &[u8]) -> bool {
    let (mut at, mut position) = (0, 0);
    // Where the last star was, and up to where it has taken.
    let mut star: Option<(usize, usize)> = None;
    while position < subject.len() {
        match tokens.get(at) {
            Some(Token::Many) => {
                star = Some((at, position));
                at += 1;
                continue;
            }
            Some(Token::One) => {
                at += 1;
                position += char_len(&subject[position..]);
                continue;
            }
            Some(Token::Byte(byte)) if *byte == subject[position] => {
                at += 1;
                position += 1;
                continue;
            }
            Some(Token::Byte(_) | Token::Variable(_)) | None => {}
        }
        let Some((star_at, taken)) = star else { return false };
        let taken = taken + char_len(&subject[taken..]);
        star = Some((star_at, taken));
        at = star_at + 1;
        position = taken;
    }
    tokens[at..].iter().all(|token| *token == Token::Many)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn glob(pattern: &str, subject: &[u8]) -> bool {
        Pattern::parse(pattern, Wildcards::Yes, Expansion::No).expect("pattern").fits(subject)
    }

    /// The rules by recursion: right by inspection, and exponential.
    fn naive(pattern: &[char], subject: &[char]) -> bool {
        match (pattern.split_first(), subject.split_first()) {
            (None, None) => true,
            (None, Some(_)) => false,
            (Some(('*', rest)), None) => naive(rest, subject),
            (Some(('*', rest)), Some((_, behind))) => naive(rest, subject) || naive(pattern, behind),
            (Some(_), None) => false,
            (Some((one, rest)), Some((char, behind))) => (*one == '?' || one == char) && naive(rest, behind),
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_recursion(pattern in "[ab*?é]{0,9}", subject in "[abé]{0,12}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(glob(&pattern, subject.as_bytes()), naive(&chars(&pattern), &chars(&subject)));
        }

        #[test]
        fn what_matches_could_match(pattern in "[ab/*?]{0,9}", subject in "[ab/]{0,9}", cut in 0_usize..9) {
            let parsed = Pattern::parse(&pattern, Wildcards::Yes, Expansion::No).expect("pattern");
            prop_assert_eq!(parsed.could_match(subject.as_bytes()), glob(&pattern, subject.as_bytes()));
            if glob(&pattern, subject.as_bytes()) {
                prop_assert!(parsed.could_match_prefix(&subject.as_bytes()[..cut.min(subject.len())]));
            }
        }
    }

    #[test]
    fn a_hostile_pattern_costs_pattern_times_subject() {
        let pattern = "*a".repeat(2_000) + "b";
        assert!(!glob(&pattern, "a".repeat(8_000).as_bytes()));
    }

    struct Name(&'static str);
    impl Variables for Name {
        fn variable(&self, key: &str) -> Option<String> {
            (key == "aws:username" && !self.0.is_empty()).then(|| self.0.to_owned())
        }
        fn spend(&self, _: usize) -> bool {
            true
        }
    }

    #[test]
    fn variables_are_taken_literally() {
        let check = |text, name, subject: &str, expected| {
            let pattern = Pattern::parse(text, Wildcards::Yes, Expansion::Yes).expect("pattern");
            assert_eq!(pattern.matches(subject.as_bytes(), &Name(name)), expected, "{text} {name} {subject}");
        };
        check("home/${aws:username}/*", "anna", "home/anna/x", Some(true));
        check("home/${AWS:UserName}/*", "anna", "home/anna/x", Some(true));
        check("home/${aws:username}/*", "anna", "home/berta/x", Some(false));
        check("home/${aws:username}/*", "*", "home/anna/x", Some(false));
        check("home/${aws:username}/*", "", "home//x", None);
        check("home/${aws:username, 'nobody'}/*", "", "home/nobody/x", Some(true));
        check("a${*}b${?}c${$}d", "", "a*b?c$d", Some(true));
        check("a${*}b", "", "axxb", Some(false));
    }

    #[test]
    fn a_variable_needs_a_name_and_an_end() {
        for text in ["${aws:username", "${}", "${name}", "${aws:username, nobody}"] {
            assert_eq!(Pattern::parse(text, Wildcards::Yes, Expansion::Yes), Err(BadVariable), "{text}");
            assert!(Pattern::parse(text, Wildcards::Yes, Expansion::No).is_ok(), "{text}");
        }
    }

    #[test]
    fn wildcards_of_an_arn_stay_in_their_part() {
        let check = |text, subject: &str| {
            let pattern = Pattern::parse(text, Wildcards::Yes, Expansion::No).expect("pattern");
            pattern.matches_arn(subject.as_bytes(), &Name("")) == Some(true)
        };
        assert!(check("arn:aws:iam::*:user/a*", "arn:aws:iam::p:user/anna"));
        assert!(check("arn:aws:iam::*:*", "arn:aws:iam::p:user/a:b"));
        assert!(!check("arn:aws:iam*user/anna", "arn:aws:iam::p:user/anna"));
        assert!(!check("arn:*:user/anna", "arn:aws:iam::p:user/anna"));
    }
}
