//! Bucket policies: their grammar, and what one says about one request.
//!
//! Source: "Grammar of the IAM JSON policy language", "Bucket policies for Amazon S3", "Policy evaluation logic". What the
//! grammar does not have is refused when the policy is put, with AWS's message: a policy that somebody misread is worse
//! than none. Matching is by bytes of the key, iterative, and bounded by the policy's length times the request's.

use crate::action::{self, Scope};
use crate::condition::Condition;
use crate::json::Json;
use crate::pattern::{Expansion, Pattern, Variables, Wildcards};
use crate::principal::{Principal, Principals};
use std::borrow::Cow;
use std::cell::Cell;

/// The longest policy, as AWS has it: 20 KiB.
pub const POLICY_LEN_BYTES_MAX: usize = 20 * 1024;

/// The longest action: twice the longest name that S3 has, so that there is room for wildcards.
const ACTION_LEN_BYTES_MAX: usize = 128;

/// Why a text is no policy for its bucket. The messages are AWS's for `MalformedPolicy`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// More than [`POLICY_LEN_BYTES_MAX`].
    #[error("Policy exceeds the maximum allowed document size.")]
    TooLong,
    /// Not JSON, a field named twice, or something before the first brace.
    #[error("Policies must be valid JSON and the first byte must be '{{'")]
    NotJson,
    /// A version that the language does not have.
    #[error("The policy must contain a valid version string")]
    InvalidVersion,
    /// No statement.
    #[error("Could not parse the policy: Statement is empty!")]
    NoStatement,
    /// A field that must be there.
    #[error("Missing required field {0}")]
    MissingField(&'static str),
    /// A field that the grammar does not have.
    #[error("Unknown field {0}")]
    UnknownField(String),
    /// Neither Allow nor Deny.
    #[error("Invalid effect: {0}")]
    InvalidEffect(String),
    /// Somebody whom AWS's grammar can't name.
    #[error("Invalid principal in policy")]
    InvalidPrincipal,
    /// Allow with NotPrincipal would let in everybody whom the list forgets.
    #[error("Allow with NotPrincipal is not allowed.")]
    AllowNotPrincipal,
    /// An action that S3 does not have.
    #[error("Policy has invalid action")]
    InvalidAction,
    /// A resource that is not in this bucket.
    #[error("Policy has invalid resource")]
    InvalidResource,
    /// An action on objects with a bucket only, or the other way round.
    #[error("Action does not apply to any resource(s) in statement")]
    ActionWithoutResource,
    /// A condition operator that the language does not have.
    #[error("Invalid Condition type : {0}")]
    InvalidOperator(String),
    /// A condition key that AWS does not have.
    #[error("Policy has an invalid condition key")]
    InvalidConditionKey,
    /// Anything else that the grammar does not have.
    #[error("Invalid policy syntax.")]
    Syntax,
}

/// What a statement does with the requests that it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Allow,
    Deny,
}

/// What a policy says about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A statement allows it and none denies it.
    Allow,
    /// A statement denies it.
    Deny,
    /// No statement is about it.
    NoMatch,
}

/// What a request says of condition keys.
///
/// Keys that the requester's identity decides (`aws:username`, `aws:userid`, `aws:PrincipalArn`, `aws:PrincipalAccount`,
/// `aws:PrincipalType`) are never asked for: the policy knows them from the [`Principal`].
pub trait ConditionKeys {
    /// The values of a key, or `None` if the request does not have it. The name comes in lower case up to the first `/`;
    /// behind that, a tag's own name keeps its case: `aws:sourceip`, `s3:existingobjecttag/Security`.
    fn values(&self, key: &str) -> Option<Vec<Cow<'_, str>>>;
}

/// One request, as policies see it.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Who asks.
    pub principal: Principal<'a>,
    /// Such as `s3:GetObject`.
    pub action: &'a str,
    /// The bucket's name.
    pub bucket: &'a str,
    /// The object's key, for actions on objects.
    pub key: Option<&'a [u8]>,
    /// The facts that conditions are about.
    pub keys: &'a dyn ConditionKeys,
}

/// What one evaluation may cost, in comparisons of one byte: some 50 ms. A policy of 20 KiB against the longest key takes at
/// most 20 Mi. Only patterns made for it, against a header made for it, take more.
const STEPS_MAX: usize = 32 << 20;

/// A request that is being judged, and what that may still cost.
struct Evaluation<'a> {
    request: &'a Request<'a>,
    steps_left: Cell<usize>,
    is_exhausted: Cell<bool>,
}

impl Variables for Evaluation<'_> {
    fn variable(&self, key: &str) -> Option<String> {
        let mut values = self.request.values(key)?;
        // A variable of several values stands for none of them.
        (values.len() == 1).then(|| values.swap_remove(0).into_owned())
    }

    fn spend(&self, steps: usize) -> bool {
        match self.steps_left.get().checked_sub(steps) {
            Some(left) if !self.is_exhausted.get() => self.steps_left.set(left),
            _ => self.is_exhausted.set(true),
        }
        !self.is_exhausted.get()
    }
}

impl Request<'_> {
    fn values(&self, key: &str) -> Option<Vec<Cow<'_, str>>> {
        match self.principal.key(key) {
            Some(values) => values.map(|values| values.into_iter().map(Cow::Owned).collect()),
            None => self.keys.values(key),
        }
    }

    /// What stands behind the last colon of the resource's ARN.
    fn resource(&self) -> Vec<u8> {
        let mut resource = self.bucket.as_bytes().to_vec();
        if let Some(key) = self.key {
            resource.push(b'/');
            resource.extend_from_slice(key);
        }
        resource
    }
}

/// A list that a statement matches with, or everything but.
#[derive(Debug, Clone, PartialEq)]
enum Listed<T> {
    In(T),
    NotIn(T),
}

/// One statement.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Statement {
    pub(crate) effect: Effect,
    principals: Listed<Principals>,
    actions: Listed<Vec<Pattern>>,
    resources: Listed<Vec<Pattern>>,
    pub(crate) conditions: Vec<Condition>,
}

/// A bucket policy that was read whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    statements: Vec<Statement>,
}

impl Policy {
    /// Reads the policy of `bucket`.
    ///
    /// # Errors
    /// What is wrong with it, in AWS's words.
    pub fn parse(text: &[u8], bucket: &str) -> Result<Self, PolicyError> {
        if text.len() > POLICY_LEN_BYTES_MAX {
            return Err(PolicyError::TooLong);
        }
        if text.first() != Some(&b'{') {
            return Err(PolicyError::NotJson);
        }
        let Ok(Json::Object(fields)) = serde_json::from_slice(text) else { return Err(PolicyError::NotJson) };
        let mut expansion = Expansion::No;
        let mut statements: Option<&Json> = None;
        for (name, value) in &fields {
            match (name.as_str(), value) {
                ("Version", Json::Text(version)) => match version.as_str() {
                    "2012-10-17" => expansion = Expansion::Yes,
                    "2008-10-17" => {}
                    _ => return Err(PolicyError::InvalidVersion),
                },
                ("Version", _) => return Err(PolicyError::InvalidVersion),
                ("Id", Json::Text(_)) => {}
                ("Statement", value) => statements = Some(value),
                ("Id", _) => return Err(PolicyError::Syntax),
                _ => return Err(PolicyError::UnknownField(name.clone())),
            }
        }
        let statements = statements.ok_or(PolicyError::MissingField("Statement"))?.one_or_many();
        if statements.is_empty() {
            return Err(PolicyError::NoStatement);
        }
        let read = |statement: &Json| Statement::parse(statement, bucket, expansion);
        Ok(Self { statements: statements.iter().map(read).collect::<Result<_, _>>()? })
    }

    /// What the policy says about `request`. One Deny outweighs every Allow, in any order. Where finding out would cost more
    /// than any honest policy does, the answer is Deny.
    pub fn evaluate(&self, request: &Request<'_>) -> Verdict {
        let resource = request.resource();
        let action = request.action.to_ascii_lowercase();
        let request = Evaluation { request, steps_left: Cell::new(STEPS_MAX), is_exhausted: Cell::new(false) };
        let mut verdict = Verdict::NoMatch;
        for statement in &self.statements {
            let applies = statement.applies(&request, action.as_bytes(), &resource);
            if request.is_exhausted.get() {
                return Verdict::Deny;
            }
            if applies {
                match statement.effect {
                    Effect::Deny => return Verdict::Deny,
                    Effect::Allow => verdict = Verdict::Allow,
                }
            }
        }
        verdict
    }

    /// Whether some statement allows `principal` something, under whatever condition: who is named by none need not be
    /// listened to.
    pub fn could_allow(&self, principal: &Principal<'_>) -> bool {
        self.statements.iter().any(|statement| {
            let is_named = match &statement.principals {
                Listed::In(principals) => principals.names(principal),
                Listed::NotIn(principals) => !principals.names(principal),
            };
            statement.effect == Effect::Allow && is_named
        })
    }

    /// Whether it lets in the public, as AWS means it: some statement allows everybody, and no condition narrows that to
    /// fixed values ("Blocking public access to your Amazon S3 storage").
    pub fn is_public(&self) -> bool {
        self.statements.iter().any(crate::public::is_public)
    }
}

impl Statement {
    fn parse(json: &Json, bucket: &str, expansion: Expansion) -> Result<Self, PolicyError> {
        let Json::Object(fields) = json else { return Err(PolicyError::Syntax) };
        let (mut effect, mut principals, mut actions, mut resources) = (None, None, None, None);
        let mut conditions = Vec::new();
        for (name, value) in fields {
            let is_second = match name.as_str() {
                "Sid" => {
                    let Json::Text(_) = value else { return Err(PolicyError::Syntax) };
                    false
                }
                "Effect" => {
                    effect = Some(match value {
                        Json::Text(text) if text == "Allow" => Effect::Allow,
                        Json::Text(text) if text == "Deny" => Effect::Deny,
                        other => return Err(PolicyError::InvalidEffect(other.scalar().unwrap_or_default())),
                    });
                    false
                }
                "Principal" | "NotPrincipal" => {
                    let list = Principals::parse(value).map_err(|_| PolicyError::InvalidPrincipal)?;
                    principals.replace(listed(name, list)).is_some()
                }
                "Action" | "NotAction" => actions.replace(listed(name, parse_actions(value)?)).is_some(),
                "Resource" | "NotResource" => {
                    resources.replace(listed(name, parse_resources(value, bucket, expansion)?)).is_some()
                }
                "Condition" => {
                    conditions = Condition::parse_all(value, expansion)?;
                    false
                }
                _ => return Err(PolicyError::UnknownField(name.clone())),
            };
            // Such as Action beside NotAction.
            if is_second {
                return Err(PolicyError::Syntax);
            }
        }
        let effect = effect.ok_or(PolicyError::MissingField("Effect"))?;
        let principals = principals.ok_or(PolicyError::MissingField("Principal"))?;
        let actions = actions.ok_or(PolicyError::MissingField("Action"))?;
        let resources = resources.ok_or(PolicyError::MissingField("Resource"))?;
        if effect == Effect::Allow && matches!(principals, Listed::NotIn(_)) {
            return Err(PolicyError::AllowNotPrincipal);
        }
        if let (Listed::In(actions), Listed::In(resources)) = (&actions, &resources) {
            check_scopes(actions, resources, bucket)?;
        }
        Ok(Self { effect, principals, actions, resources, conditions })
    }

    /// Whether everybody is named.
    pub(crate) fn is_for_everybody(&self) -> bool {
        match &self.principals {
            Listed::In(principals) => principals.is_everybody(),
            Listed::NotIn(_) => true,
        }
    }

    fn applies(&self, request: &Evaluation<'_>, action: &[u8], resource: &[u8]) -> bool {
        let is_principal = match &self.principals {
            Listed::In(principals) => principals.names(&request.request.principal),
            Listed::NotIn(principals) => !principals.names(&request.request.principal),
        };
        is_principal
            && self.lists(&self.actions, action, request)
            && self.lists(&self.resources, resource, request)
            && self.conditions.iter().all(|condition| {
                let values = request.request.values(condition.key());
                condition.holds(values.as_deref(), request, self.effect)
            })
    }

    /// Whether a list has `subject` (or has it not, for NotAction and NotResource). A pattern with a variable that stands
    /// for nothing matches nothing; where that would widen an Allow, it keeps the statement from applying.
    fn lists(&self, listed: &Listed<Vec<Pattern>>, subject: &[u8], request: &Evaluation<'_>) -> bool {
        let any = |patterns: &[Pattern], unresolved: bool| {
            patterns.iter().any(|pattern| pattern.matches(subject, request).unwrap_or(unresolved))
        };
        match listed {
            Listed::In(patterns) => any(patterns, false),
            Listed::NotIn(patterns) => !any(patterns, self.effect == Effect::Allow),
        }
    }
}

fn listed<T>(name: &str, list: T) -> Listed<T> {
    if name.starts_with("Not") { Listed::NotIn(list) } else { Listed::In(list) }
}

fn parse_actions(json: &Json) -> Result<Vec<Pattern>, PolicyError> {
    let values = json.one_or_many();
    if values.is_empty() {
        return Err(PolicyError::MissingField("Action"));
    }
    let read = |value: &Json| {
        let Json::Text(text) = value else { return Err(PolicyError::Syntax) };
        let text = text.to_ascii_lowercase();
        let is_s3 = text == "*" || text.starts_with("s3:");
        if !is_s3 || text.len() > ACTION_LEN_BYTES_MAX {
            return Err(PolicyError::InvalidAction);
        }
        let pattern = Pattern::parse(&text, Wildcards::Yes, Expansion::No).map_err(|_| PolicyError::InvalidAction)?;
        if scopes(&pattern) == (false, false) {
            return Err(PolicyError::InvalidAction);
        }
        Ok(pattern)
    };
    values.iter().map(read).collect()
}

/// Whether an action's pattern fits any action on buckets, and any on objects.
fn scopes(action: &Pattern) -> (bool, bool) {
    let (mut bucket, mut object) = (false, false);
    for (name, scope) in action::known() {
        if action.fits(format!("s3:{name}").as_bytes()) {
            match scope {
                Scope::Bucket => bucket = true,
                Scope::Object => object = true,
            }
        }
    }
    (bucket, object)
}

/// Resources as what stands behind the last colon of their ARN: `bucket`, `bucket/key`.
fn parse_resources(json: &Json, bucket: &str, expansion: Expansion) -> Result<Vec<Pattern>, PolicyError> {
    let values = json.one_or_many();
    if values.is_empty() {
        return Err(PolicyError::MissingField("Resource"));
    }
    let read = |value: &Json| {
        let Json::Text(text) = value else { return Err(PolicyError::Syntax) };
        let resource = resource_of(text).ok_or(PolicyError::InvalidResource)?;
        let pattern = Pattern::parse(resource, Wildcards::Yes, expansion).map_err(|_| PolicyError::InvalidResource)?;
        if !covers_bucket(&pattern, bucket) && !covers_objects(&pattern, bucket) {
            return Err(PolicyError::InvalidResource);
        }
        Ok(pattern)
    };
    values.iter().map(read).collect()
}

/// `arn:aws:s3:::resource`, or `*` alone. Region and account of S3's ARNs are empty, or a wildcard.
fn resource_of(text: &str) -> Option<&str> {
    if text == "*" {
        return Some(text);
    }
    let mut parts = text.splitn(6, ':');
    let (arn, partition, service) = (parts.next()?, parts.next()?, parts.next()?);
    let (region, account, resource) = (parts.next()?, parts.next()?, parts.next()?);
    let is_aws = arn == "arn" && matches!(partition, "aws" | "aws-cn" | "aws-us-gov") && service == "s3";
    let is_anywhere = matches!(region, "" | "*") && matches!(account, "" | "*");
    (is_aws && is_anywhere && !resource.is_empty()).then_some(resource)
}

fn covers_bucket(resource: &Pattern, bucket: &str) -> bool {
    resource.could_match(bucket.as_bytes())
}

fn covers_objects(resource: &Pattern, bucket: &str) -> bool {
    resource.could_match_prefix(format!("{bucket}/").as_bytes())
}

/// Every action of a statement must be about one of its resources.
fn check_scopes(actions: &[Pattern], resources: &[Pattern], bucket: &str) -> Result<(), PolicyError> {
    let has_bucket = resources.iter().any(|resource| covers_bucket(resource, bucket));
    let has_objects = resources.iter().any(|resource| covers_objects(resource, bucket));
    let is_idle = |action: &Pattern| {
        let (on_bucket, on_objects) = scopes(action);
        !(on_bucket && has_bucket || on_objects && has_objects)
    };
    if actions.iter().any(is_idle) { Err(PolicyError::ActionWithoutResource) } else { Ok(()) }
}
