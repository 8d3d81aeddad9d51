//! The GraphQL schema that Fly's clients speak, over the server's [`Desk`].
//!
//! A front end and no more: resolvers read arguments, ask the desk as the caller, and shape the
//! answer. Types, fields and arguments are those of Fly's schema (flyctl-wire.md 4); what Hangar
//! does not have is refused by name, with the reason ([`absent`]).
//!
//! ```text
//! POST /graphql ─► who calls ─► parse ─► absent? ─► validate ─► Queries, Mutations ─► Desk
//! ```
#![warn(missing_docs)]

mod absent;
mod app;
mod http;
mod machine;
mod mutation;
mod org;
mod page;
mod query;
mod release;
mod scalar;
mod secret;
mod session;

use async_graphql::{EmptySubscription, SchemaBuilder};
use hangar_server::desk::Desk;

pub use http::router;

/// The schema, without anybody's data.
type Schema = async_graphql::Schema<query::Queries, mutation::Mutations, EmptySubscription>;

/// Deepest query: clients go to 7, introspection to 13.
const MAX_DEPTH: usize = 20;
/// Most fields of a query, each counted once.
const MAX_COMPLEXITY: usize = 1_000;

/// Returns the schema in GraphQL's own language, as introspection shows it.
#[must_use]
pub fn sdl() -> String {
    builder().finish().sdl()
}

fn builder() -> SchemaBuilder<query::Queries, mutation::Mutations, EmptySubscription> {
    async_graphql::Schema::build(query::Queries, mutation::Mutations, EmptySubscription)
        .limit_depth(MAX_DEPTH)
        .limit_complexity(MAX_COMPLEXITY)
}

/// Returns the schema over a desk.
fn schema(desk: Desk) -> Schema {
    builder().data(desk).finish()
}
