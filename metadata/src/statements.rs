//! Signed statements: receipts, certificates and reports. What they say is the business of who asks; here they get their
//! project, the state of its ledger, the time, and the signature.

use crate::records::{self, ProjectRecord};
use crate::sequencer::frontier_of;
use crate::service::{Core, MetadataService, corrupt, malformed};
use std::sync::Arc;
use valv_ledger::{SignedStatement, Statement, StatementKind};
use valv_metadata_api::{MetadataError, PrincipalConflict};
use valv_types::ProjectId;

/// What stands for a project's name in statements of the cluster.
const CLUSTER_NAME: &str = "(cluster)";

impl MetadataService {
    /// Signs `facts` about a project: a JSON object of strings, integers, booleans, nulls, arrays and objects. Every ledger
    /// record that was committed before the call is in the ledger that the statement names.
    ///
    /// # Errors
    /// [`MetadataError::Malformed`] for facts with other numbers; others as metadata answers.
    pub async fn statement(
        &self,
        kind: StatementKind,
        project: ProjectId,
        facts: serde_json::Value,
    ) -> Result<SignedStatement, MetadataError> {
        self.0.statement(kind, project, facts).await
    }
}

impl Core {
    /// See [`MetadataService::statement`]: for acts that leave a receipt or a certificate. Call it after the act's commit.
    pub(crate) async fn statement(
        self: &Arc<Self>,
        kind: StatementKind,
        project: ProjectId,
        facts: serde_json::Value,
    ) -> Result<SignedStatement, MetadataError> {
        self.sequence_ledgers().await?;
        let row = self.get(&self.rows.ledger_tree(project)).await?;
        let frontier = frontier_of(row.as_ref())?;
        let statement = Statement {
            kind,
            project,
            project_name: self.name_of_project(project).await?,
            ledger: (frontier.size(), frontier.root()),
            time: self.clock.now(),
            facts,
        };
        let key = self.signing_key();
        SignedStatement::new(&statement, &key.public_key(), |text| key.sign(text).to_vec())
            .map_err(|_| malformed("a statement's facts hold a number that is no integer"))
    }

    /// What a project is called.
    pub(crate) async fn name_of_project(&self, project: ProjectId) -> Result<String, MetadataError> {
        if project == ProjectId::CLUSTER {
            return Ok(CLUSTER_NAME.to_owned());
        }
        let row = self.get(&self.rows.project(project)).await?.ok_or(PrincipalConflict::NoSuchProject)?;
        let record: ProjectRecord = records::decode("project", &row.value)?;
        let name = self.seals.open_principal(project.as_bytes(), &record.sealed_name)?;
        String::from_utf8(name).map_err(|_| corrupt("project"))
    }
}
