//! What can be done.

use async_graphql::{InputObject, Object, SimpleObject};

/// What can be done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mutations;

/// Nothing to say.
#[derive(Clone, Debug, InputObject)]
pub(crate) struct LogOutInput {
    /// Told back.
    client_mutation_id: Option<String>,
}

/// What became of it.
#[derive(Clone, Debug, SimpleObject)]
pub(crate) struct LogOutPayload {
    /// As it was told.
    client_mutation_id: Option<String>,
    /// Whether the client may forget its token: yes. The token itself stays valid until it is
    /// revoked: it may be in use elsewhere.
    ok: bool,
}

/// What can be done.
#[Object(name = "Mutations")]
impl Mutations {
    /// Ends the session of a client, which forgets its token.
    async fn log_out(&self, input: LogOutInput) -> LogOutPayload {
        LogOutPayload {
            client_mutation_id: input.client_mutation_id,
            ok: true,
        }
    }
}
