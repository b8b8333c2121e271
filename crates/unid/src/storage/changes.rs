//! Statements about databases and retention policies, in the store's words.

use uni_query::{Change, Policy, PolicyChange};
use uni_store::{PolicyError, PolicySpec, Store};

/// Does what a statement says.
pub(super) fn change(store: &Store, change: &Change) -> Result<(), PolicyError> {
    match change {
        Change::CreateDatabase { name, with: None } => store.create_database(name),
        Change::CreateDatabase { name, with: Some((policy, with)) } => {
            store.create_database_with(name, policy.as_deref(), &spec(with))
        }
        Change::CreatePolicy { db, name, change, default } => {
            store.create_policy(db, name, &spec(change), *default)
        }
        Change::AlterPolicy { db, name, change, default } => {
            store.alter_policy(db, name, &spec(change), *default)
        }
        Change::DropPolicy { db, name } => store.drop_policy(db, name),
        Change::DropDatabase { name } => store.drop_database(name),
    }
}

fn spec(change: &PolicyChange) -> PolicySpec {
    let &PolicyChange { duration, shard_duration, replicas } = change;
    PolicySpec { duration, shard_duration, replicas }
}

/// The policies of a database.
pub(super) fn policies(store: &Store, db: &str) -> Vec<Policy> {
    let shown = |info: uni_store::PolicyInfo| Policy {
        name: info.policy.name,
        duration: info.policy.duration,
        shard_duration: info.policy.shard_duration,
        replicas: info.policy.replicas,
        is_default: info.is_default,
    };
    store.policies(db).unwrap_or_default().into_iter().map(shown).collect()
}
