//! The table of endpoints: method, path, what the caller needs, handler, documentation.

mod apps;
mod machines;
mod parts;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{self, MethodFilter, MethodRouter};
use hangar_api::rights::Action;

use super::answers::{Authorized, Done, Slots, Verified};
use super::described::{Asked, Described, Doc, Sketch, doc};
use super::guard::Need::{self, Body, Listed, Open, Org, Platform, Token, Tokens};
use super::{
    MAX_WITH_FILES, absent, fly_table, images, openapi, org_fleet, orgs, platform, tokens,
};
use crate::core::Core;

/// One row: an endpoint, what it asks of its caller, and what it says of itself.
pub(super) struct Endpoint {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) need: Need,
    pub(super) handler: MethodRouter<Arc<Core>>,
    /// What it is about, in the document.
    pub(super) tag: &'static str,
    pub(super) doc: Doc,
    pub(super) sketch: Sketch,
}

/// Returns every endpoint.
pub(super) fn table() -> Vec<Endpoint> {
    let groups = [
        ("Platform", "", page_rows()),
        ("Platform", "/v1", platform_rows()),
        ("flyctl", "", fly_table::rows()),
        ("Organizations", "/v1/orgs", org_rows()),
        ("Tokens", "/v1/tokens", token_rows()),
        ("Apps", "/v1/apps", apps::app_rows()),
        ("Apps", "/v1/apps", apps::address_rows()),
        ("Apps", "/v1/apps/{app}/secretkeys", apps::secret_key_rows()),
        (
            "Machines",
            "/v1/apps/{app}/machines",
            machines::machine_rows(),
        ),
        ("Volumes", "/v1/apps/{app}/volumes", parts::volume_rows()),
        (
            "Certificates",
            "/v1/apps/{app}/certificates",
            parts::certificate_rows(),
        ),
        (
            "Machines",
            "/v1/apps/{app}/machines/{machine}/metadata",
            machines::metadata_rows(),
        ),
    ];
    let mut table = Vec::new();
    for (tag, base, rows) in groups {
        table.extend(rows.into_iter().map(|row| Endpoint {
            method: row.method,
            path: format!("{base}{}", row.rest),
            need: row.need,
            handler: row.handler,
            tag,
            doc: row.doc,
            sketch: row.sketch,
        }));
    }
    table
}

/// A row of a group.
pub(super) struct Row {
    method: Method,
    /// What follows the base of the group.
    rest: &'static str,
    need: Need,
    handler: MethodRouter<Arc<Core>>,
    doc: Doc,
    sketch: Sketch,
}

/// Returns a row. Its handler's own types go into the document.
pub(super) fn on<H, T, S>(
    method: Method,
    rest: &'static str,
    need: Need,
    handler: H,
    doc: Doc,
) -> Row
where
    H: Handler<T, Arc<Core>> + Described<S>,
    T: 'static,
{
    let filter = MethodFilter::try_from(method.clone()).expect("HTTP's own methods have filters");
    Row {
        method,
        rest,
        need,
        handler: routing::on(filter, handler),
        doc,
        sketch: H::sketch(),
    }
}

/// Returns a row whose bodies may hold the files of a configuration.
fn with_files(row: Row) -> Row {
    Row {
        handler: row.handler.layer(DefaultBodyLimit::max(MAX_WITH_FILES)),
        ..row
    }
}

/// Statuses of what a host is asked: it may be busy, gone, or refuse.
pub(super) const HOST: &[u16] = &[408, 409, 412, 500, 501, 503];
/// Rows that one answer gives.
pub(super) const LIMITED: &[Asked] = &[("limit", "integer", "How many, the newest first.")];
/// The name of an image.
const NAMED: &[Asked] = &[("name", "text!", "The image's name: NAME or NAME:TAG.")];
/// Where the next page begins.
const PAGED: &[(&str, &str)] = &[(
    "fly-next-cursor",
    "Where the next page begins; absent on the last one.",
)];

const GET: Method = Method::GET;
const POST: Method = Method::POST;
const PUT: Method = Method::PUT;
const PATCH: Method = Method::PATCH;
const METHOD_DELETE: Method = Method::DELETE;

const READ: Action = Action::READ;
const WRITE: Action = Action::WRITE;
const CREATE: Action = Action::CREATE;
const DELETE: Action = Action::DELETE;
const CONTROL: Action = Action::CONTROL;

fn page_rows() -> Vec<Row> {
    vec![on(
        GET,
        "/docs",
        Open,
        openapi::page,
        doc("Docs_show", "Read this document as a page").media("text/html"),
    )]
}

fn platform_rows() -> Vec<Row> {
    [server_rows(), slot_rows(), postgres_rows(), image_rows()]
        .into_iter()
        .flatten()
        .collect()
}

fn server_rows() -> Vec<Row> {
    vec![
        on(
            GET,
            "/health",
            Open,
            platform::health,
            doc("Health_show", "Tell that the server answers").gives::<Done>(),
        ),
        on(
            GET,
            "/openapi.json",
            Open,
            openapi::document,
            doc("OpenApi_show", "Show this document"),
        ),
    ]
}

fn slot_rows() -> Vec<Row> {
    vec![
        on(
            GET,
            "/platform/regions",
            Token,
            platform::regions,
            doc("Platform_regions_get", "List the regions").fails(&[500]),
        ),
        on(
            POST,
            "/platform/placements",
            Token,
            platform::placements,
            doc("Platform_placements_post", "Find places for Machines")
                .fails(&[404, 422, 501, 503]),
        ),
        on(
            GET,
            "/platform/edge",
            Token,
            platform::edge,
            doc(
                "Platform_edge_show",
                "Show where the proxy and the registry are reached",
            ),
        ),
        on(
            GET,
            "/platform/slots",
            Token,
            platform::slots,
            doc("Platform_slots_list", "List what Machines are placed on").gives::<Slots>(),
        ),
        on(
            POST,
            "/platform/slots/{slot}/lost",
            Platform(CONTROL),
            platform::lost,
            doc("Platform_slots_lost", "Mark a slot as lost").fails(&[404, 412]),
        ),
        on(
            POST,
            "/platform/slots/{slot}/back",
            Platform(CONTROL),
            platform::back,
            doc("Platform_slots_back", "Take back a slot that was lost").fails(&[404, 412]),
        ),
    ]
}

fn postgres_rows() -> Vec<Row> {
    vec![
        on(
            GET,
            "/postgres",
            Token,
            absent::postgres,
            doc("Postgres_list", "List managed Postgres clusters").refused(),
        ),
        on(
            POST,
            "/postgres",
            Token,
            absent::postgres,
            doc("Postgres_create", "Create a managed Postgres cluster").refused(),
        ),
        on(
            GET,
            "/postgres/{*rest}",
            Token,
            absent::postgres,
            doc("Postgres_show", "Ask about managed Postgres").refused(),
        ),
    ]
}

fn image_rows() -> Vec<Row> {
    // An archive is streamed to disk, under a limit of its own.
    let import = on(
        POST,
        "/images",
        Body,
        images::import,
        doc("Images_import", "Import an image")
            .more(
                "The body is an archive as `docker save` or `skopeo copy` \
                 writes it, at most 32 GiB; it is not held to the limit of \
                 JSON bodies.",
            )
            .status(201)
            .upload("application/octet-stream")
            .query(NAMED)
            .fails(&[400, 404, 422, 501]),
    );
    vec![
        on(
            GET,
            "/images",
            Listed,
            images::list,
            doc("Images_list", "List the images that are ready").fails(&[500, 503]),
        ),
        Row {
            handler: import.handler.layer(DefaultBodyLimit::disable()),
            ..import
        },
        on(
            POST,
            "/images/prune",
            Platform(DELETE),
            images::prune,
            doc("Images_prune", "Remove the images that nothing uses"),
        ),
        on(
            GET,
            "/images/resolve",
            Body,
            images::resolve,
            doc("Images_resolve", "Find out what an image's name means")
                .more("An image that is not there yet is fetched.")
                .query(NAMED)
                .fails(&[400, 403, 404, 408, 412, 422, 501, 503]),
        ),
    ]
}

fn org_rows() -> Vec<Row> {
    vec![
        on(
            GET,
            "",
            Listed,
            orgs::list,
            doc("Orgs_list", "List organizations"),
        ),
        on(
            POST,
            "",
            Platform(CREATE),
            orgs::create,
            doc("Orgs_create", "Create an organization")
                .status(201)
                .fails(&[422]),
        ),
        on(
            GET,
            "/{slug}",
            Org(READ),
            orgs::show,
            doc("Orgs_show", "Get an organization"),
        ),
        on(
            METHOD_DELETE,
            "/{slug}",
            Org(DELETE),
            orgs::destroy,
            doc("Orgs_delete", "Destroy an organization")
                .status(204)
                .fails(&[412, 422]),
        ),
        on(
            GET,
            "/{slug}/machines",
            Org(READ),
            org_fleet::machines,
            doc("Machines_org_list", "List the Machines of an organization"),
        ),
        on(
            GET,
            "/{slug}/volumes",
            Org(READ),
            org_fleet::volumes,
            doc("Volumes_org_list", "List the volumes of an organization"),
        ),
        on(
            GET,
            "/{slug}/tokens",
            Tokens(READ),
            tokens::of_org,
            doc("Org_Tokens_list", "List the tokens of an organization"),
        ),
        on(
            POST,
            "/{slug}/tokens",
            Tokens(CREATE),
            tokens::for_org,
            doc("Org_Tokens_create", "Create a token of an organization")
                .status(201)
                .fails(&[422]),
        ),
    ]
}

fn token_rows() -> Vec<Row> {
    vec![
        on(
            METHOD_DELETE,
            "/{id}",
            Body,
            tokens::revoke,
            doc("Tokens_revoke", "Revoke a token").fails(&[403, 404]),
        ),
        on(
            GET,
            "/current",
            Token,
            tokens::current,
            doc("CurrentToken_show", "Show the tokens of this request"),
        ),
        // As on Fly, the tokens that are looked at stand in the body, and are all it takes.
        on(
            POST,
            "/authenticate",
            Open,
            tokens::authenticate,
            doc("Tokens_authenticate", "Tell whether tokens are good").gives::<Vec<Verified>>(),
        ),
        on(
            POST,
            "/authorize",
            Open,
            tokens::authorize,
            doc("Tokens_authorize", "Tell whether tokens may do something")
                .gives::<Authorized>()
                .fails(&[401, 403, 404]),
        ),
        on(
            POST,
            "/oidc",
            Token,
            absent::oidc,
            doc("Tokens_request_OIDC", "Request an OpenID Connect token").refused(),
        ),
        on(
            POST,
            "/kms",
            Token,
            absent::kms,
            doc(
                "Tokens_request_Kms",
                "Request a token of a key management service",
            )
            .refused(),
        ),
    ]
}
