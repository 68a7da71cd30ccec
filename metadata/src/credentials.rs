//! Tokens for the admin service: who may make one, what is kept of it, and whom it stands for.
//!
//! Kept is a keyed hash of the secret half. Its key is the cell's name key, which is sealed under the root key: neither a
//! stolen metadata folder nor an export gives a token, nor a way to try guesses.
//!
//! Consistency: making a token rewrites the user's row, as adding an access key does, so it meets with the user's deletion
//! and with another token made at once. Revoking rewrites the token's own row.
//!
//! The rows of tokens that are over stay, the newest [`OVER_KEPT_MAX`] of each user: they are how it is known that a user
//! had a token, which decides whether an operator may make one ([`judge`]).

use crate::attempt::{ATTEMPTS_MAX, Attempt, Plan, Settled, settle, store_error};
use crate::ledger::Event;
use crate::records::{self, EventKind, UserRecord};
use crate::rows::{Tag, last_id};
use crate::service::{Core, corrupt, malformed};
use crate::store::{Snapshot, Versioned};
use crate::users::FoundUser;
use minicbor::{Decode, Encode};
use serde_json::json;
use std::sync::Arc;
use subtle::ConstantTimeEq as _;
use valv_metadata_api::*;
use valv_types::{CommitId, ProjectId, TimestampMicros, TokenId, UserId};

/// Tokens that are over, of one user, whose rows are kept: enough to look back on years of monthly rotation.
const OVER_KEPT_MAX: usize = 50;
/// Most ledgers in which one act on a token is recorded: two rows each, far below the largest commit, and more projects
/// than anybody answers for.
const TOLD_PROJECTS_MAX: usize = 1_000;
const DAY_MICROS: u64 = 24 * 60 * 60 * 1_000_000;

/// A token.
#[derive(Debug, Clone, Encode, Decode)]
pub(crate) struct TokenRecord {
    #[n(0)]
    pub(crate) user: UserId,
    #[n(1)]
    pub(crate) is_operator: bool,
    #[n(2)]
    pub(crate) created: TimestampMicros,
    #[n(3)]
    pub(crate) expires: TimestampMicros,
    #[n(4)]
    pub(crate) made_by: Option<UserId>,
    #[n(5)]
    pub(crate) revoked: Option<TimestampMicros>,
    /// See [`Core::token_hash`].
    #[n(6)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) secret_hash: [u8; 32],
    /// What it is for, sealed under the system key "principals".
    #[n(7)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) sealed: Vec<u8>,
}

impl TokenRecord {
    fn state(&self, now: TimestampMicros) -> TokenState {
        match self.revoked {
            Some(_) => TokenState::Revoked,
            None if self.expires <= now => TokenState::Expired,
            None => TokenState::Valid,
        }
    }
}

/// A token as it was read.
pub(crate) struct FoundToken {
    pub(crate) id: TokenId,
    pub(crate) row: Versioned,
    pub(crate) record: TokenRecord,
}

/// Who asks for a token, as seen from its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asker {
    Themselves { is_operator: bool },
    Operator,
    Other,
}

impl Asker {
    fn new(actor: &Actor, by_operator: bool, user: UserId) -> Self {
        match (actor.user, by_operator) {
            (Some(asker), is_operator) if asker == user => Self::Themselves { is_operator },
            (_, true) => Self::Operator,
            (_, false) => Self::Other,
        }
    }
}

/// Whether `asker` may make a token. `had_one`: whether the user ever had one; `is_governed`: whether the user is a member
/// of a governed project.
fn judge(asker: Asker, operator_wanted: bool, had_one: bool, is_governed: bool) -> Result<(), TokenConflict> {
    match asker {
        Asker::Other => Err(TokenConflict::NotYours),
        Asker::Themselves { is_operator: false } if operator_wanted => Err(TokenConflict::OperatorsOnly),
        Asker::Operator if had_one && is_governed => Err(TokenConflict::OwnTokenNeeded),
        Asker::Themselves { .. } | Asker::Operator => Ok(()),
    }
}

impl Core {
    /// What is kept of a token's secret half: keyed BLAKE3 of a word, a zero byte, the id and the secret.
    fn token_hash(&self, id: TokenId, secret: &[u8]) -> Result<[u8; 32], MetadataError> {
        let key = self.name_key.get().ok_or_else(|| MetadataError::Unavailable {
            what: "this store holds no cluster yet: it has to be bootstrapped".to_owned(),
        })?;
        let mut hasher = blake3::Hasher::new_keyed(key);
        hasher.update(b"token secret\0").update(id.as_bytes()).update(secret);
        Ok(*hasher.finalize().as_bytes())
    }

    /// Whom a token stands for. Whatever does not fit is the same refusal.
    pub(crate) async fn judge_token(&self, request: CheckToken) -> Result<TokenGrant, MetadataError> {
        let shown = self.token_hash(request.id, request.secret.expose())?;
        let row = self.get(&self.rows.token(request.id)).await?.ok_or(TokenConflict::NotValid)?;
        let record: TokenRecord = records::decode("token", &row.value)?;
        let fits = bool::from(record.secret_hash.as_slice().ct_eq(shown.as_slice()));
        if !fits || record.state(self.now()) != TokenState::Valid {
            return Err(TokenConflict::NotValid.into());
        }
        // A user is deleted together with all tokens.
        let user = self.get(&self.rows.user(record.user)).await?.ok_or(TokenConflict::NotValid)?;
        let names = self.user_names(record.user, &records::decode::<UserRecord>("user", &user.value)?)?;
        Ok(TokenGrant { user: record.user, user_name: names.name, is_operator: record.is_operator })
    }

    pub(crate) async fn make_token(self: &Arc<Self>, request: CreateToken) -> Result<TokenEntry, MetadataError> {
        if request.secret.expose().len() != TOKEN_SECRET_LEN_BYTES {
            return Err(malformed("a token's secret of another length"));
        }
        if !(1..=TOKEN_DAYS_MAX).contains(&request.days) {
            return Err(TokenConflict::DaysOutOfRange.into());
        }
        let description = &request.description;
        if description.len() > TOKEN_DESCRIPTION_LEN_BYTES_MAX || description.chars().any(char::is_control) {
            return Err(TokenConflict::DescriptionMalformed.into());
        }
        for number in 0..ATTEMPTS_MAX {
            let _turn = self.queue(number, b"principals").await;
            let plan = self.plan_token(&request).await;
            match settle(self.store.as_ref(), request.commit, number, plan).await? {
                Settled::Done(()) | Settled::Before(_) => return self.token_entry(request.id).await,
                Settled::Again => {}
            }
        }
        Err(MetadataError::Conflict)
    }

    async fn plan_token(self: &Arc<Self>, request: &CreateToken) -> Result<Plan<()>, MetadataError> {
        let user = self.user_named(&request.user_name).await?;
        let (now, id) = (self.now(), user.id);
        let tokens = self.scan(move |core, snapshot| core.tokens_of_user(snapshot, id)).await?;
        let governed = self.governed_projects_of(id).await?;
        let asker = Asker::new(&request.actor, request.asked_by_operator, id);
        judge(asker, request.is_operator, !tokens.is_empty(), !governed.is_empty())?;
        let (valid, mut over): (Vec<_>, Vec<_>) =
            tokens.into_iter().partition(|token| token.record.state(now) == TokenState::Valid);
        if valid.len() >= TOKENS_PER_USER_MAX {
            return Err(TokenConflict::TooMany.into());
        }

        let mut attempt = Attempt::default();
        attempt.expect(self.rows.user(id), Some(&user.row));
        attempt.put(self.rows.user(id), user.row.value.clone());
        over.sort_by_key(|token| token.record.created);
        for token in over.iter().rev().skip(OVER_KEPT_MAX) {
            attempt.expect(self.rows.token(token.id), Some(&token.row));
            attempt.remove(self.rows.token(token.id));
        }
        let record = TokenRecord {
            user: id,
            is_operator: request.is_operator,
            created: now,
            expires: TimestampMicros(now.0.saturating_add(u64::from(request.days) * DAY_MICROS)),
            made_by: request.actor.user,
            revoked: None,
            secret_hash: self.token_hash(request.id, request.secret.expose())?,
            sealed: self.seals.seal_principal(request.id.as_bytes(), request.description.as_bytes())?,
        };
        attempt.expect_absent(self.rows.token(request.id));
        attempt.put(self.rows.token(request.id), records::encode(&record));
        let detail = json!({
            "token": request.id.to_string(),
            "operator": request.is_operator,
            "expires_micros": record.expires.0,
            "description": request.description,
        });
        let told = self.ledgers_to_tell(&user, governed)?;
        self.record_token(
            &mut attempt,
            request.commit,
            &request.actor,
            EventKind::TokenCreated,
            &user,
            &told,
            &detail,
        )?;
        Ok(Plan::Commit(attempt, ()))
    }

    pub(crate) async fn end_token(self: &Arc<Self>, request: RevokeToken) -> Result<TokenEntry, MetadataError> {
        for number in 0..ATTEMPTS_MAX {
            let _turn = self.queue(number, b"principals").await;
            let plan = self.plan_revocation(&request).await;
            match settle(self.store.as_ref(), request.commit, number, plan).await? {
                Settled::Done(()) | Settled::Before(_) => return self.token_entry(request.id).await,
                Settled::Again => {}
            }
        }
        Err(MetadataError::Conflict)
    }

    async fn plan_revocation(self: &Arc<Self>, request: &RevokeToken) -> Result<Plan<()>, MetadataError> {
        let row = self.get(&self.rows.token(request.id)).await?.ok_or(TokenConflict::NoSuchToken)?;
        let mut record: TokenRecord = records::decode("token", &row.value)?;
        if Asker::new(&request.actor, request.asked_by_operator, record.user) == Asker::Other {
            // Whether others have a token of this id is not told.
            return Err(TokenConflict::NoSuchToken.into());
        }
        if record.revoked.is_some() {
            return Ok(Plan::Nothing(()));
        }
        record.revoked = Some(self.now());
        let mut attempt = Attempt::default();
        attempt.expect(self.rows.token(request.id), Some(&row));
        attempt.put(self.rows.token(request.id), records::encode(&record));
        let user = self.user_with(record.user).await.map_err(|error| match error {
            MetadataError::NoSuchUser => MetadataError::from(TokenConflict::NoSuchToken),
            other => other,
        })?;
        let mut governed = self.governed_projects_of(user.id).await?;
        // A token must be revocable whatever became of its user.
        governed.truncate(TOLD_PROJECTS_MAX - 2);
        let told = self.ledgers_to_tell(&user, governed)?;
        let detail = json!({ "token": request.id.to_string() });
        self.record_token(
            &mut attempt,
            request.commit,
            &request.actor,
            EventKind::TokenRevoked,
            &user,
            &told,
            &detail,
        )?;
        Ok(Plan::Commit(attempt, ()))
    }

    /// Who learns of a user's tokens: the default project, every governed one where the user is a member, and the cluster,
    /// to whose operators it says what their own do.
    fn ledgers_to_tell(&self, user: &FoundUser, governed: Vec<ProjectId>) -> Result<Vec<ProjectId>, MetadataError> {
        let mut told = governed;
        told.extend([user.record.project, ProjectId::CLUSTER]);
        told.sort_unstable();
        told.dedup();
        match told.len() <= TOLD_PROJECTS_MAX {
            true => Ok(told),
            false => Err(TokenConflict::TooManyProjects.into()),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "one record in several ledgers: each argument is a part of it")]
    fn record_token(
        &self,
        attempt: &mut Attempt,
        commit: CommitId,
        actor: &Actor,
        kind: EventKind,
        user: &FoundUser,
        told: &[ProjectId],
        detail: &serde_json::Value,
    ) -> Result<(), MetadataError> {
        for project in told {
            let event = Event::of_project(kind, *project, self.now(), &user.names.name);
            match self.record_act(attempt, commit, actor, detail, event) {
                // A project whose key was destroyed has nothing left that a token could open.
                Ok(()) | Err(MetadataError::KeyUnavailable | MetadataError::KeyDestroyed) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Governed projects where the user is a member, in no order.
    async fn governed_projects_of(self: &Arc<Self>, user: UserId) -> Result<Vec<ProjectId>, MetadataError> {
        let memberships = self.memberships(ProjectsOf { user }).await?;
        Ok(memberships.into_iter().map(|membership| membership.project).collect())
    }

    /// All tokens of a user, in the order of their ids. Found by walking all of the cell's, as access keys are.
    pub(crate) fn tokens_of_user(
        &self,
        snapshot: &dyn Snapshot,
        user: UserId,
    ) -> Result<Vec<FoundToken>, MetadataError> {
        self.tokens(snapshot, |record| record.user == user)
    }

    fn tokens(
        &self,
        snapshot: &dyn Snapshot,
        wanted: impl Fn(&TokenRecord) -> bool,
    ) -> Result<Vec<FoundToken>, MetadataError> {
        let range = self.rows.range(Tag::Token, &[]);
        let mut tokens = Vec::new();
        let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
        while let Some((key, row)) = cursor.next().map_err(store_error)? {
            let record: TokenRecord = records::decode("token", &row.value)?;
            if wanted(&record) {
                let id = last_id(&key).map(TokenId::from_bytes).ok_or_else(|| corrupt("token row"))?;
                tokens.push(FoundToken { id, row, record });
            }
        }
        Ok(tokens)
    }

    pub(crate) async fn all_tokens(self: &Arc<Self>, request: ListTokens) -> Result<Vec<TokenEntry>, MetadataError> {
        let user = match request.user_name {
            Some(name) => Some(self.user_named(&name).await?.id),
            None => None,
        };
        self.scan(move |core, snapshot| {
            let tokens = core.tokens(snapshot, |record| user.is_none_or(|user| record.user == user))?;
            let mut entries = tokens
                .into_iter()
                .filter_map(|token| core.entry_of_token(snapshot, token.id, &token.record).transpose())
                .collect::<Result<Vec<_>, _>>()?;
            entries.sort_by(|a, b| (&a.user_name, a.created, a.id).cmp(&(&b.user_name, b.created, b.id)));
            Ok(entries)
        })
        .await
    }

    async fn token_entry(self: &Arc<Self>, id: TokenId) -> Result<TokenEntry, MetadataError> {
        self.scan(move |core, snapshot| {
            let row = snapshot.get(&core.rows.token(id)).map_err(store_error)?.ok_or(TokenConflict::NoSuchToken)?;
            let record = records::decode("token", &row.value)?;
            core.entry_of_token(snapshot, id, &record)?.ok_or_else(|| TokenConflict::NoSuchToken.into())
        })
        .await
    }

    /// A token as the API tells it; `None` if its user has gone.
    fn entry_of_token(
        &self,
        snapshot: &dyn Snapshot,
        id: TokenId,
        record: &TokenRecord,
    ) -> Result<Option<TokenEntry>, MetadataError> {
        let Some(user) = snapshot.get(&self.rows.user(record.user)).map_err(store_error)? else { return Ok(None) };
        let names = self.user_names(record.user, &records::decode::<UserRecord>("user", &user.value)?)?;
        let description = self.seals.open_principal(id.as_bytes(), &record.sealed)?;
        Ok(Some(TokenEntry {
            id,
            user: record.user,
            user_name: names.name,
            is_operator: record.is_operator,
            created: record.created,
            expires: record.expires,
            description: String::from_utf8(description).map_err(|_| corrupt("token description"))?,
            made_by: record.made_by,
            revoked: record.revoked,
            state: record.state(self.now()),
        }))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing::{Fixture, SECRET_TEXT, principal};

    #[test]
    fn who_may_make_a_token() {
        let own = Asker::Themselves { is_operator: false };
        let operators_own = Asker::Themselves { is_operator: true };
        let ok = Ok(());
        for (asker, operator_wanted, had_one, is_governed, expected) in [
            (own, false, true, true, ok),
            (own, false, false, true, ok),
            (own, true, true, false, Err(TokenConflict::OperatorsOnly)),
            (operators_own, true, true, true, ok),
            (Asker::Operator, false, false, true, ok),
            (Asker::Operator, true, false, true, ok),
            (Asker::Operator, false, true, false, ok),
            (Asker::Operator, false, true, true, Err(TokenConflict::OwnTokenNeeded)),
            (Asker::Operator, true, true, true, Err(TokenConflict::OwnTokenNeeded)),
            (Asker::Other, false, false, false, Err(TokenConflict::NotYours)),
            (Asker::Other, true, false, false, Err(TokenConflict::NotYours)),
        ] {
            let judged = judge(asker, operator_wanted, had_one, is_governed);
            assert_eq!(judged, expected, "{asker:?} {operator_wanted} {had_one} {is_governed}");
        }
    }

    fn local_operator(project: ProjectId) -> Actor {
        Actor {
            project,
            user: None,
            access_key: None,
            request_id: "r".to_owned(),
            remote: "local".to_owned(),
            caller: Some("operator on the server's socket".to_owned()),
            opening: None,
        }
    }

    fn create(fixture: &Fixture, name: &str, secret: u8) -> CreateToken {
        CreateToken {
            actor: local_operator(fixture.actor.project),
            asked_by_operator: true,
            user_name: name.to_owned(),
            is_operator: false,
            days: 90,
            description: SECRET_TEXT.to_owned(),
            id: TokenId::random(),
            secret: Secret::new(vec![secret; TOKEN_SECRET_LEN_BYTES]),
            commit: CommitId::random(),
        }
    }

    fn check(made: &CreateToken) -> CheckToken {
        CheckToken { id: made.id, secret: made.secret.clone() }
    }

    fn conflict<T: std::fmt::Debug>(answer: Result<T, MetadataError>) -> TokenConflict {
        match answer {
            Err(MetadataError::Token { reason }) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_token_is_its_users_until_it_is_revoked_and_only_a_hash_of_it_is_kept() {
        let fixture = Fixture::new().await;
        let request = create(&fixture, "main", 7);
        let made = fixture.service.create_token(request.clone()).await.unwrap();
        assert_eq!((made.id, made.state, made.made_by), (request.id, TokenState::Valid, None));
        // Repeated, the same.
        assert_eq!(fixture.service.create_token(request.clone()).await.unwrap(), made);
        let grant = fixture.service.check_token(check(&request)).await.unwrap();
        assert_eq!((grant.user_name.as_str(), grant.is_operator), ("main", false));
        for wrong in [
            CheckToken { secret: Secret::new(vec![8; TOKEN_SECRET_LEN_BYTES]), ..check(&request) },
            CheckToken { secret: Secret::new(Vec::new()), ..check(&request) },
            CheckToken { id: TokenId::random(), ..check(&request) },
        ] {
            assert_eq!(conflict(fixture.service.check_token(wrong).await), TokenConflict::NotValid);
        }
        for row in fixture.store.rows().values() {
            let finds = |needle: &[u8]| row.value.windows(needle.len()).any(|window| window == needle);
            assert!(!finds(&[7; TOKEN_SECRET_LEN_BYTES]) && !finds(SECRET_TEXT.as_bytes()));
        }

        let mut revoke = RevokeToken {
            actor: Actor { user: Some(UserId::random()), ..request.actor.clone() },
            asked_by_operator: false,
            id: request.id,
            commit: CommitId::random(),
        };
        assert_eq!(conflict(fixture.service.revoke_token(revoke.clone()).await), TokenConflict::NoSuchToken);
        revoke.actor.user = Some(made.user);
        let revoked = fixture.service.revoke_token(revoke.clone()).await.unwrap();
        assert_eq!(revoked.state, TokenState::Revoked);
        revoke.commit = CommitId::random();
        assert_eq!(fixture.service.revoke_token(revoke).await.unwrap(), revoked, "twice is as once");
        assert_eq!(conflict(fixture.service.check_token(check(&request)).await), TokenConflict::NotValid);
        let listed = fixture.service.list_tokens(ListTokens { user_name: Some("main".to_owned()) }).await.unwrap();
        assert_eq!(listed, [revoked]);
    }

    #[tokio::test]
    async fn what_can_not_be_a_token_is_refused() {
        let fixture = Fixture::new().await;
        let good = create(&fixture, "main", 1);
        for (request, expected) in [
            (CreateToken { days: 0, ..good.clone() }, TokenConflict::DaysOutOfRange),
            (CreateToken { days: TOKEN_DAYS_MAX + 1, ..good.clone() }, TokenConflict::DaysOutOfRange),
            (CreateToken { description: "x".repeat(257), ..good.clone() }, TokenConflict::DescriptionMalformed),
            (CreateToken { description: "a\nb".to_owned(), ..good.clone() }, TokenConflict::DescriptionMalformed),
            (CreateToken { asked_by_operator: false, ..good.clone() }, TokenConflict::NotYours),
        ] {
            assert_eq!(conflict(fixture.service.create_token(request).await), expected);
        }
        let short = CreateToken { secret: Secret::new(vec![1; 31]), ..good.clone() };
        assert!(matches!(fixture.service.create_token(short).await, Err(MetadataError::Malformed { .. })));
        let nobody = CreateToken { user_name: "nobody".to_owned(), ..good };
        assert_eq!(fixture.service.create_token(nobody).await, Err(MetadataError::NoSuchUser));
        for secret in 0..TOKENS_PER_USER_MAX {
            fixture.service.create_token(create(&fixture, "main", secret as u8)).await.unwrap();
        }
        assert_eq!(conflict(fixture.service.create_token(create(&fixture, "main", 99)).await), TokenConflict::TooMany);
    }

    #[tokio::test]
    async fn operators_make_no_second_token_for_a_member_of_a_governed_project() {
        let fixture = Fixture::new().await;
        let project = fixture.actor.project;
        let ada = fixture.service.ensure_principal(principal("ada")).await.unwrap().user;
        let operator = local_operator(project);
        let govern = GovernProject {
            by: Person { actor: operator.clone(), is_operator: true },
            project,
            controller: "ada".to_owned(),
            commit: CommitId::random(),
        };
        fixture.service.govern_project(govern).await.unwrap();
        let events = || {
            let range = fixture.service.0.rows.range(Tag::Ledger, &[project.as_bytes()]);
            fixture
                .store
                .rows()
                .keys()
                .filter(|key| range.start.as_slice() <= key.as_ref() && key.as_ref() < range.end.as_slice())
                .count()
        };
        let before = events();
        let first = fixture.service.create_token(create(&fixture, "ada", 1)).await.unwrap();
        assert_eq!(events(), before + 1, "the project's ledger tells of it");
        let second = conflict(fixture.service.create_token(create(&fixture, "ada", 2)).await);
        assert_eq!(second, TokenConflict::OwnTokenNeeded);
        // Revoking is an operator's, too, and opens no way round.
        let revoke = RevokeToken { actor: operator, asked_by_operator: true, id: first.id, commit: CommitId::random() };
        fixture.service.revoke_token(revoke).await.unwrap();
        assert_eq!(events(), before + 2);
        let third = conflict(fixture.service.create_token(create(&fixture, "ada", 3)).await);
        assert_eq!(third, TokenConflict::OwnTokenNeeded);
        let mut own = create(&fixture, "ada", 4);
        (own.actor.user, own.asked_by_operator) = (Some(ada), false);
        let own = fixture.service.create_token(own).await.unwrap();
        assert_eq!(own.made_by, Some(ada));
        // Who is in no governed project gets as many from operators as there is room for.
        for secret in 5..7 {
            fixture.service.create_token(create(&fixture, "main", secret)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn tokens_go_with_their_user() {
        let fixture = Fixture::new().await;
        fixture.service.ensure_principal(principal("ada")).await.unwrap();
        let request = create(&fixture, "ada", 3);
        fixture.service.create_token(request.clone()).await.unwrap();
        let delete = DeleteUser { user_name: "ada".to_owned(), commit: CommitId::random() };
        fixture.service.delete_user(delete).await.unwrap();
        assert_eq!(fixture.store.count(Tag::Token), 0);
        assert_eq!(conflict(fixture.service.check_token(check(&request)).await), TokenConflict::NotValid);
    }

    #[tokio::test]
    async fn tokens_that_are_over_are_kept_in_number_but_not_for_ever() {
        let fixture = Fixture::new().await;
        for number in 0..OVER_KEPT_MAX + 5 {
            let request = create(&fixture, "main", number as u8);
            let made = fixture.service.create_token(request.clone()).await.unwrap();
            let revoke =
                RevokeToken { actor: request.actor, asked_by_operator: true, id: made.id, commit: CommitId::random() };
            fixture.service.revoke_token(revoke).await.unwrap();
        }
        assert_eq!(fixture.store.count(Tag::Token), OVER_KEPT_MAX + 1);
    }
}
