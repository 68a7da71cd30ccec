//! Projects, their members, and who may make access keys there.

use crate::rows::Tag;
use crate::testing::{Fixture, SECRET_TEXT, block_on, principal};
use proptest::prelude::*;
use std::collections::BTreeMap;
use valv_metadata_api::*;
use valv_types::{AccessKeyId, CommitId, PoolId, ProjectId, TimestampMicros, UserId};

/// Somebody at the admin service.
fn person(user: Option<UserId>, is_operator: bool) -> Person {
    let actor = Actor {
        project: ProjectId::CLUSTER,
        user,
        access_key: None,
        request_id: "r".to_owned(),
        remote: "local".to_owned(),
        caller: Some("a test".to_owned()),
        opening: None,
    };
    Person { actor, is_operator }
}

fn operator() -> Person {
    person(None, true)
}

fn refusal<T: std::fmt::Debug>(outcome: Result<T, MetadataError>) -> ProjectRefusal {
    match outcome {
        Err(MetadataError::Project { reason }) => reason,
        other => panic!("{other:?} is no refusal"),
    }
}

fn create(name: &str, controller: &str) -> CreateProject {
    CreateProject {
        by: operator(),
        name: name.to_owned(),
        namespace_name: String::new(),
        controller: controller.to_owned(),
        properties: ProjectChanges::default(),
        commit: CommitId::random(),
    }
}

fn key_in(project: &str, user: &str, key: &str, by: Person) -> CreateAccessKey {
    CreateAccessKey {
        user_name: user.to_owned(),
        project_name: Some(project.to_owned()),
        namespace_name: String::new(),
        id: AccessKeyId::new(key).unwrap(),
        secret: Secret::new(b"a secret".to_vec()),
        commit: CommitId::random(),
        by: Some(by),
    }
}

/// Three users, a governed project with `ada` as its controller, and ways to change it.
struct Governed {
    fixture: Fixture,
    project: Project,
    users: BTreeMap<&'static str, UserId>,
}

impl Governed {
    async fn new() -> Self {
        let fixture = Fixture::new().await;
        let mut users = BTreeMap::new();
        for name in ["ada", "bob", "cyd"] {
            users.insert(name, fixture.service.ensure_principal(principal(name)).await.unwrap().user);
        }
        let project = fixture.service.create_project(create("cohort", "ada")).await.unwrap();
        Self { fixture, project, users }
    }

    fn as_user(&self, name: &str) -> Person {
        person(Some(self.users[name]), false)
    }

    async fn set(&self, by: Person, user: &str, roles: &[Role]) -> Result<Member, MetadataError> {
        let request = SetMember {
            by,
            project: self.project.id,
            user_name: user.to_owned(),
            roles: roles.iter().copied().collect(),
            commit: CommitId::random(),
        };
        self.fixture.service.set_member(request).await
    }

    async fn remove(&self, by: Person, user: &str) -> Result<Empty, MetadataError> {
        let request =
            RemoveMember { by, project: self.project.id, user_name: user.to_owned(), commit: CommitId::random() };
        self.fixture.service.remove_member(request).await
    }

    async fn update(&self, by: Person, changes: ProjectChanges) -> Result<Project, MetadataError> {
        let request = UpdateProject { by, project: self.project.id, changes, commit: CommitId::random() };
        self.fixture.service.update_project(request).await
    }

    async fn grant(&self, key: &str) -> Result<AccessGrant, MetadataError> {
        self.fixture.service.get_access_key(GetAccessKey { id: AccessKeyId::new(key).unwrap() }).await
    }

    async fn members(&self) -> Vec<(String, Vec<Role>)> {
        let members = self.fixture.service.list_members(ListMembers { project: self.project.id }).await.unwrap();
        members.into_iter().map(|member| (member.user_name, member.roles.iter().collect())).collect()
    }
}

#[tokio::test]
async fn a_project_is_made_once_with_its_own_namespace_and_found_by_name_and_id() {
    let governed = Governed::new().await;
    let service = &governed.fixture.service;
    let project = &governed.project;
    assert!(project.is_governed());
    assert_eq!((project.name.as_str(), project.namespace_name.as_str()), ("cohort", "cohort"));
    assert_eq!(service.get_project(GetProject::Name("cohort".to_owned())).await.unwrap(), *project);
    assert_eq!(service.get_project(GetProject::Id(project.id)).await.unwrap(), *project);
    assert_eq!(governed.members().await, [("ada".to_owned(), vec![Role::Controller])]);

    assert_eq!(refusal(service.create_project(create("cohort", "ada")).await), ProjectRefusal::NameTaken);
    let by_nobody = CreateProject { by: governed.as_user("ada"), ..create("other", "ada") };
    assert_eq!(refusal(service.create_project(by_nobody).await), ProjectRefusal::OperatorsOnly);
    let unknown = service.create_project(create("other", "nobody")).await;
    assert_eq!(unknown, Err(MetadataError::NoSuchUser));
    // "shared" is the namespace of the ungoverned projects: it is shared by name only.
    assert_eq!(refusal(service.create_project(create("shared", "ada")).await), ProjectRefusal::NamespaceTaken);
    let sharing = CreateProject { namespace_name: "shared".to_owned(), ..create("shared", "ada") };
    assert_eq!(service.create_project(sharing).await.unwrap().namespace, governed.fixture.namespace);

    let names = |page: Vec<Project>| page.into_iter().map(|project| project.name).collect::<Vec<_>>();
    let all = service.list_projects(ListProjects { after: None, limit: 100 }).await.unwrap();
    let all = names(all);
    assert!(all.is_sorted() && all.contains(&"cohort".to_owned()) && all.contains(&"project of main".to_owned()));
    let after = service.list_projects(ListProjects { after: Some(all[1].clone()), limit: 2 }).await.unwrap();
    assert_eq!(names(after), all[2..4]);
}

#[tokio::test]
async fn making_a_project_again_with_the_same_commit_finds_the_first() {
    let governed = Governed::new().await;
    let request = create("lost answer", "ada");
    governed.fixture.store.lose_answers.store(1, std::sync::atomic::Ordering::Relaxed);
    let first = governed.fixture.service.create_project(request.clone()).await.unwrap();
    assert_eq!(governed.fixture.service.create_project(request).await.unwrap(), first);
}

#[tokio::test]
async fn each_side_changes_what_is_its_own() {
    let governed = Governed::new().await;
    let contact = ProjectChanges { contact: Some(SECRET_TEXT.to_owned()), ..ProjectChanges::default() };
    let paid =
        ProjectChanges { paid_until: Some(PaidUntil { until: Some(TimestampMicros(7)) }), ..ProjectChanges::default() };
    assert_eq!(refusal(governed.update(operator(), contact.clone()).await), ProjectRefusal::RoleMissing);
    assert_eq!(refusal(governed.update(governed.as_user("ada"), paid.clone()).await), ProjectRefusal::OperatorsOnly);
    governed.update(governed.as_user("ada"), contact).await.unwrap();
    let project = governed.update(operator(), paid).await.unwrap();
    assert_eq!(project.details.unwrap().contact, SECRET_TEXT);
    assert_eq!(project.paid_until, Some(TimestampMicros(7)));
    let pool = ProjectChanges { pool: Some(PoolId(99)), ..ProjectChanges::default() };
    assert_eq!(refusal(governed.update(operator(), pool).await), ProjectRefusal::NoSuchPool);
    let long = ProjectChanges { note: Some("x".repeat(4097)), ..ProjectChanges::default() };
    assert_eq!(refusal(governed.update(governed.as_user("ada"), long).await), ProjectRefusal::TextMalformed);
    for row in governed.fixture.store.rows().values() {
        let is_open = row.value.windows(SECRET_TEXT.len()).any(|window| window == SECRET_TEXT.as_bytes());
        assert!(!is_open, "a contact lies open in a row");
    }
}

#[tokio::test]
async fn members_are_changed_by_controllers_only_and_the_last_controller_stays() {
    let governed = Governed::new().await;
    let ada = || governed.as_user("ada");
    for by in [operator(), person(Some(governed.users["bob"]), true), governed.as_user("bob")] {
        let refused = refusal(governed.set(by.clone(), "bob", &[Role::Reader]).await);
        assert_eq!(refused, ProjectRefusal::RoleMissing);
        let refused = refusal(governed.remove(by, "ada").await);
        assert_eq!(refused, ProjectRefusal::RoleMissing);
    }
    assert_eq!(refusal(governed.set(ada(), "bob", &[]).await), ProjectRefusal::NoRole);
    assert_eq!(refusal(governed.remove(ada(), "bob").await), ProjectRefusal::NoSuchMember);
    governed.set(ada(), "bob", &[Role::Reader, Role::Auditor]).await.unwrap();
    let steward = governed.set(governed.as_user("bob"), "cyd", &[Role::Steward]).await;
    assert_eq!(refusal(steward), ProjectRefusal::RoleMissing);

    assert_eq!(refusal(governed.remove(ada(), "ada").await), ProjectRefusal::LastController);
    assert_eq!(refusal(governed.set(ada(), "ada", &[Role::Steward]).await), ProjectRefusal::LastController);
    let deleted = DeleteUser { user_name: "ada".to_owned(), commit: CommitId::random() };
    let deleted = governed.fixture.service.delete_user(deleted).await;
    assert_eq!(refusal(deleted), ProjectRefusal::UserIsLastController);

    governed.set(ada(), "cyd", &[Role::Controller]).await.unwrap();
    governed.remove(ada(), "ada").await.unwrap();
    assert_eq!(refusal(governed.set(ada(), "ada", &[Role::Controller]).await), ProjectRefusal::RoleMissing);
    // A member may leave; and a user's end is the end of the memberships.
    governed.remove(governed.as_user("bob"), "bob").await.unwrap();
    governed.set(governed.as_user("cyd"), "bob", &[Role::Depositor]).await.unwrap();
    let of_bob = ProjectsOf { user: governed.users["bob"] };
    let found = governed.fixture.service.projects_of(of_bob.clone()).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].project_name.as_str(), found[0].project), ("cohort", governed.project.id));
    let deleted = DeleteUser { user_name: "bob".to_owned(), commit: CommitId::random() };
    governed.fixture.service.delete_user(deleted).await.unwrap();
    assert_eq!(governed.members().await, [("cyd".to_owned(), vec![Role::Controller])]);
    assert_eq!(governed.fixture.service.projects_of(of_bob).await.unwrap(), []);
    assert_eq!(governed.fixture.store.count(Tag::Membership), 1);
}

#[tokio::test]
async fn an_operator_makes_no_way_in_with_an_access_key() {
    let governed = Governed::new().await;
    let service = &governed.fixture.service;
    let add = |user: &str, key: &str, by: Person| service.create_access_key(key_in("cohort", user, key, by));
    // Not for a stranger, whoever asks; not through the configuration either.
    for by in [operator(), governed.as_user("ada"), governed.as_user("bob")] {
        assert_eq!(refusal(add("bob", "BOB-ONE", by).await), ProjectRefusal::KeyOfStranger);
    }
    let configured = |user: &str, key: &str, secret: &str| EnsurePrincipal {
        project_name: "cohort".to_owned(),
        namespace_name: String::new(),
        access_key: AccessKeyId::new(key).unwrap(),
        secret: Secret::new(secret.as_bytes().to_vec()),
        ..principal(user)
    };
    for user in ["bob", "new"] {
        let outcome = service.ensure_principal(configured(user, "CONFIGURED", "secret")).await;
        assert_eq!(refusal(outcome), ProjectRefusal::KeyOfStranger, "{user}");
    }
    // The first key of a member is an operator's to make, and no other.
    add("ada", "ADA-ONE", operator()).await.unwrap();
    assert_eq!(refusal(add("ada", "ADA-TWO", operator()).await), ProjectRefusal::KeyOfMember);
    let deleted = DeleteAccessKey { id: AccessKeyId::new("ADA-ONE").unwrap(), commit: CommitId::random() };
    service.delete_access_key(deleted).await.unwrap();
    assert_eq!(refusal(add("ada", "ADA-ONE", operator()).await), ProjectRefusal::KeyOfMember, "once is once");
    assert_eq!(refusal(service.ensure_principal(configured("ada", "ADA-ONE", "x")).await), ProjectRefusal::KeyOfMember);
    add("ada", "ADA-TWO", governed.as_user("ada")).await.unwrap();
    let outcome = service.ensure_principal(configured("ada", "ADA-TWO", "the operator's")).await;
    assert_eq!(refusal(outcome), ProjectRefusal::SecretFixed);
    assert_eq!(governed.grant("ADA-TWO").await.unwrap().secret.expose(), b"a secret");

    governed.set(governed.as_user("ada"), "bob", &[Role::Reader]).await.unwrap();
    governed.set(governed.as_user("ada"), "cyd", &[Role::Steward]).await.unwrap();
    assert_eq!(refusal(add("bob", "BOB-ONE", governed.as_user("cyd")).await), ProjectRefusal::KeyOfMember);
    add("bob", "BOB-ONE", governed.as_user("ada")).await.unwrap();
    let grant = governed.grant("BOB-ONE").await.unwrap();
    assert!(grant.is_governed && grant.roles == Roles::NONE.with(Role::Reader));
    governed.set(governed.as_user("ada"), "bob", &[Role::Auditor]).await.unwrap();
    assert_eq!(governed.grant("BOB-ONE").await.unwrap().roles, Roles::NONE.with(Role::Auditor));
    governed.remove(governed.as_user("ada"), "bob").await.unwrap();
    assert!(matches!(governed.grant("BOB-ONE").await, Err(MetadataError::NoSuchAccessKey)));
    governed.set(governed.as_user("ada"), "bob", &[Role::Reader]).await.unwrap();
    assert!(governed.grant("BOB-ONE").await.is_ok());
    assert_eq!(refusal(add("bob", "BOB-TWO", operator()).await), ProjectRefusal::KeyOfMember, "bob has a key there");
}

#[tokio::test]
async fn governing_a_project_shuts_out_whoever_is_no_member() {
    let governed = Governed::new().await;
    let service = &governed.fixture.service;
    let project = service.get_project(GetProject::Name("project of bob".to_owned())).await.unwrap();
    assert!(!project.is_governed() && project.details == Some(ProjectDetails::default()));
    assert!(!governed.grant("KEY-bob").await.unwrap().is_governed);
    // Ungoverned, operators stand in for the controller; members there are none.
    let set = SetMember {
        by: operator(),
        project: project.id,
        user_name: "bob".to_owned(),
        roles: Roles::NONE.with(Role::Reader),
        commit: CommitId::random(),
    };
    assert_eq!(refusal(service.set_member(set).await), ProjectRefusal::Ungoverned);
    let govern = |by: Person| GovernProject {
        by,
        project: project.id,
        controller: "cyd".to_owned(),
        commit: CommitId::random(),
    };
    let by_user = service.govern_project(govern(governed.as_user("bob"))).await;
    assert_eq!(refusal(by_user), ProjectRefusal::OperatorsOnly);
    assert!(service.govern_project(govern(operator())).await.unwrap().is_governed());
    assert_eq!(refusal(service.govern_project(govern(operator())).await), ProjectRefusal::AlreadyGoverned);
    assert!(matches!(governed.grant("KEY-bob").await, Err(MetadataError::NoSuchAccessKey)));
    // What the configuration names stays as it is, and still gives no right.
    assert!(!service.ensure_principal(principal("bob")).await.unwrap().changed);
    let members = service.list_members(ListMembers { project: project.id }).await.unwrap();
    assert_eq!(members.len(), 1);
    assert_eq!(members[0].user_name, "cyd");
}

/// One thing that somebody tries.
#[derive(Debug, Clone)]
enum Step {
    Set { by: usize, user: usize, roles: u8 },
    Remove { by: usize, user: usize },
}

const NAMES: [&str; 3] = ["ada", "bob", "cyd"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..4usize, 0..3usize, 0..32u8).prop_map(|(by, user, roles)| Step::Set { by, user, roles }),
        1 => (0..4usize, 0..3usize).prop_map(|(by, user)| Step::Remove { by, user }),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Against a map from user to roles: whatever is tried, only controllers change anything, and there always is one.
    #[test]
    fn members_are_as_a_map_from_user_to_roles(steps in steps()) {
        block_on(async {
            let governed = Governed::new().await;
            let mut model: BTreeMap<&str, Roles> = BTreeMap::new();
            model.insert("ada", Roles::NONE.with(Role::Controller));
            let is_controller = |model: &BTreeMap<&str, Roles>, by: usize| {
                NAMES.get(by).and_then(|name| model.get(name)).is_some_and(|roles| roles.has(Role::Controller))
            };
            let keeps_one = |model: &BTreeMap<&str, Roles>| model.values().any(|roles| roles.has(Role::Controller));
            for step in steps {
                let (Step::Set { by, .. } | Step::Remove { by, .. }) = step;
                let person = NAMES.get(by).map_or_else(operator, |name| governed.as_user(name));
                let mut wanted = model.clone();
                let (outcome, may) = match step {
                    Step::Set { user, roles, .. } => {
                        let roles: Vec<Role> =
                            Role::ALL.into_iter().enumerate().filter(|(i, _)| roles >> i & 1 == 1).map(|(_, r)| r).collect();
                        wanted.insert(NAMES[user], roles.iter().copied().collect());
                        let outcome = governed.set(person, NAMES[user], &roles).await.map(|_| ());
                        (outcome, is_controller(&model, by) && !roles.is_empty())
                    }
                    Step::Remove { user, .. } => {
                        let is_member = wanted.remove(NAMES[user]).is_some();
                        let outcome = governed.remove(person, NAMES[user]).await.map(|_| ());
                        (outcome, is_member && (is_controller(&model, by) || by == user))
                    }
                };
                assert_eq!(outcome.is_ok(), may && keeps_one(&wanted), "{outcome:?}");
                if outcome.is_ok() {
                    model = wanted;
                }
                let expected: Vec<_> =
                    model.iter().map(|(name, roles)| ((*name).to_owned(), roles.iter().collect::<Vec<_>>())).collect();
                assert_eq!(governed.members().await, expected);
            }
        });
    }
}

#[tokio::test]
async fn of_two_controllers_who_remove_each_other_at_once_one_stays() {
    for _ in 0..20 {
        let governed = Governed::new().await;
        governed.set(governed.as_user("ada"), "bob", &[Role::Controller]).await.unwrap();
        let (one, other) = tokio::join!(
            governed.remove(governed.as_user("ada"), "bob"),
            governed.remove(governed.as_user("bob"), "ada")
        );
        assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
        assert_eq!(governed.members().await.len(), 1);
    }
}
