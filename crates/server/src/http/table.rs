//! The table of endpoints: method, path, what the caller needs, handler.

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{self, MethodFilter, MethodRouter};
use hangar_api::rights::Action;

use super::guard::Need::{
    self, App, Body, Deploy, Exec, Listed, Machine, MachineList, Open, Org, Platform, Token,
    Tokens, Volume,
};
use super::{
    MAX_WITH_FILES, absent, apps, certificates, deployments, events, fly_table, formation, images,
    ips, lease, logs, machines, metadata, ops, org_fleet, orgs, platform, releases, secrets,
    session, tokens, usage, volumes, watch,
};
use crate::core::Core;

/// One row: an endpoint and what it asks of its caller.
pub(super) struct Endpoint {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) need: Need,
    pub(super) handler: MethodRouter<Arc<Core>>,
}

/// Returns every endpoint.
pub(super) fn table() -> Vec<Endpoint> {
    let groups = [
        ("/v1", platform_rows()),
        ("", fly_table::rows()),
        ("/v1/orgs", org_rows()),
        ("/v1/tokens", token_rows()),
        ("/v1/apps", app_rows()),
        ("/v1/apps", address_rows()),
        ("/v1/apps/{app}/machines", machine_rows()),
        ("/v1/apps/{app}/volumes", volume_rows()),
        ("/v1/apps/{app}/certificates", certificate_rows()),
        ("/v1/apps/{app}/secretkeys", secret_key_rows()),
        (
            "/v1/apps/{app}/machines/{machine}/metadata",
            metadata_rows(),
        ),
    ];
    let mut table = Vec::new();
    for (base, rows) in groups {
        table.extend(
            rows.into_iter()
                .map(|(method, rest, need, handler)| Endpoint {
                    method,
                    path: format!("{base}{rest}"),
                    need,
                    handler,
                }),
        );
    }
    table
}

/// What follows the base of the group, and the need.
pub(super) type Row = (Method, &'static str, Need, MethodRouter<Arc<Core>>);

/// Returns a row.
pub(super) fn on<H, T>(method: Method, path: &'static str, need: Need, handler: H) -> Row
where
    H: Handler<T, Arc<Core>>,
    T: 'static,
{
    let filter = MethodFilter::try_from(method.clone()).expect("HTTP's own methods have filters");
    (method, path, need, routing::on(filter, handler))
}

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

fn platform_rows() -> Vec<Row> {
    // An archive is streamed to disk, under a limit of its own.
    let (method, path, need, handler) = on(POST, "/images", Body, images::import);
    let import = (
        method,
        path,
        need,
        handler.layer(DefaultBodyLimit::disable()),
    );
    vec![
        on(GET, "/health", Open, platform::health),
        on(GET, "/platform/regions", Token, platform::regions),
        on(POST, "/platform/placements", Token, platform::placements),
        on(GET, "/platform/edge", Token, platform::edge),
        on(GET, "/platform/slots", Token, platform::slots),
        on(
            POST,
            "/platform/slots/{slot}/lost",
            Platform(CONTROL),
            platform::lost,
        ),
        on(
            POST,
            "/platform/slots/{slot}/back",
            Platform(CONTROL),
            platform::back,
        ),
        on(GET, "/postgres", Token, absent::postgres),
        on(POST, "/postgres", Token, absent::postgres),
        on(GET, "/postgres/{*rest}", Token, absent::postgres),
        on(GET, "/images", Listed, images::list),
        import,
        on(POST, "/images/prune", Platform(DELETE), images::prune),
        on(GET, "/images/resolve", Body, images::resolve),
    ]
}

fn org_rows() -> Vec<Row> {
    vec![
        on(GET, "", Listed, orgs::list),
        on(POST, "", Platform(CREATE), orgs::create),
        on(GET, "/{slug}", Org(READ), orgs::show),
        on(METHOD_DELETE, "/{slug}", Org(DELETE), orgs::destroy),
        on(GET, "/{slug}/machines", Org(READ), org_fleet::machines),
        on(GET, "/{slug}/volumes", Org(READ), org_fleet::volumes),
        on(GET, "/{slug}/tokens", Tokens(READ), tokens::of_org),
        on(POST, "/{slug}/tokens", Tokens(CREATE), tokens::for_org),
    ]
}

fn token_rows() -> Vec<Row> {
    vec![
        on(METHOD_DELETE, "/{id}", Body, tokens::revoke),
        on(GET, "/current", Token, tokens::current),
        // As on Fly, the tokens that are looked at stand in the body, and are all it takes.
        on(POST, "/authenticate", Open, tokens::authenticate),
        on(POST, "/authorize", Open, tokens::authorize),
        on(POST, "/oidc", Token, absent::oidc),
        on(POST, "/kms", Token, absent::kms),
    ]
}

/// What an app is reached at, and who would be let in.
fn address_rows() -> Vec<Row> {
    vec![
        on(GET, "/{app}/ip_assignments", App(READ), ips::list),
        on(POST, "/{app}/ip_assignments", App(WRITE), ips::assign),
        on(
            METHOD_DELETE,
            "/{app}/ip_assignments/{ip}",
            App(WRITE),
            ips::release,
        ),
        on(
            GET,
            "/{app}/network_policies",
            App(READ),
            absent::network_policies,
        ),
        on(
            POST,
            "/{app}/network_policies",
            App(WRITE),
            absent::network_policies,
        ),
        on(
            METHOD_DELETE,
            "/{app}/network_policies/{id}",
            App(WRITE),
            absent::network_policies,
        ),
    ]
}

fn app_rows() -> Vec<Row> {
    vec![
        on(GET, "/{app}/tokens", Tokens(READ), tokens::of_app),
        on(POST, "/{app}/tokens", Tokens(CREATE), tokens::for_app),
        on(
            POST,
            "/{app}/deploy_token",
            Tokens(CREATE),
            tokens::deploy_token,
        ),
        on(GET, "", Listed, apps::list),
        on(POST, "", Body, apps::create),
        on(GET, "/{app}", App(READ), apps::show),
        on(METHOD_DELETE, "/{app}", App(DELETE), apps::destroy),
        on(GET, "/{app}/secrets", App(READ), secrets::list),
        on(POST, "/{app}/secrets", App(WRITE), secrets::update),
        on(GET, "/{app}/secrets/{name}", App(READ), secrets::show),
        on(POST, "/{app}/secrets/{name}", App(WRITE), secrets::set),
        on(
            METHOD_DELETE,
            "/{app}/secrets/{name}",
            App(WRITE),
            secrets::unset,
        ),
        on(GET, "/{app}/releases", App(READ), releases::list),
        on(GET, "/{app}/releases/{version}", App(READ), releases::show),
        on(GET, "/{app}/deployments", App(READ), deployments::list),
        on(POST, "/{app}/deployments", Deploy, deployments::create),
        on(GET, "/{app}/deployments/{id}", App(READ), deployments::show),
        on(
            GET,
            "/{app}/deployments/{id}/events",
            App(READ),
            events::follow,
        ),
        on(
            POST,
            "/{app}/deployments/{id}/cancel",
            App(WRITE),
            deployments::cancel,
        ),
        on(GET, "/{app}/formation", App(READ), formation::show),
        on(PUT, "/{app}/formation", App(WRITE), formation::update),
        on(GET, "/{app}/events", App(READ), watch::follow),
        on(GET, "/{app}/logs", App(READ), logs::read),
    ]
}

fn volume_rows() -> Vec<Row> {
    vec![
        on(GET, "", App(READ), volumes::list),
        on(POST, "", App(WRITE), volumes::create),
        on(GET, "/{volume}", Volume(READ), volumes::show),
        on(PUT, "/{volume}", Volume(WRITE), volumes::update),
        on(METHOD_DELETE, "/{volume}", Volume(DELETE), volumes::destroy),
        on(PUT, "/{volume}/extend", Volume(WRITE), volumes::extend),
        on(GET, "/{volume}/snapshots", Volume(READ), volumes::snapshots),
        on(
            POST,
            "/{volume}/snapshots",
            Volume(WRITE),
            volumes::snapshot,
        ),
        on(
            METHOD_DELETE,
            "/{volume}/snapshots/{snapshot}",
            Volume(WRITE),
            volumes::remove_snapshot,
        ),
    ]
}

fn certificate_rows() -> Vec<Row> {
    use certificates as c;
    vec![
        on(GET, "", App(READ), c::list),
        on(POST, "/acme", App(WRITE), c::add),
        on(POST, "/custom", App(WRITE), c::import),
        on(GET, "/{hostname}", App(READ), c::show),
        on(METHOD_DELETE, "/{hostname}", App(WRITE), c::remove),
        on(POST, "/{hostname}/check", App(READ), c::check),
        on(
            METHOD_DELETE,
            "/{hostname}/acme",
            App(WRITE),
            c::remove_acme,
        ),
        on(
            METHOD_DELETE,
            "/{hostname}/custom",
            App(WRITE),
            c::remove_custom,
        ),
    ]
}

fn secret_key_rows() -> Vec<Row> {
    let refused = absent::secret_keys;
    vec![
        on(GET, "", App(READ), refused),
        on(GET, "/{name}", App(READ), refused),
        on(POST, "/{name}", App(WRITE), refused),
        on(METHOD_DELETE, "/{name}", App(WRITE), refused),
        on(POST, "/{name}/{action}", App(WRITE), refused),
    ]
}

/// Returns a row whose bodies may hold the files of a configuration.
fn with_files((method, path, need, handler): Row) -> Row {
    let limit = DefaultBodyLimit::max(MAX_WITH_FILES);
    (method, path, need, handler.layer(limit))
}

fn machine_rows() -> Vec<Row> {
    vec![
        on(GET, "", MachineList, machines::list),
        with_files(on(POST, "", App(WRITE), machines::create)),
        on(GET, "/{machine}", Machine(READ), machines::show),
        with_files(on(POST, "/{machine}", Machine(WRITE), machines::update)),
        on(
            METHOD_DELETE,
            "/{machine}",
            Machine(DELETE),
            machines::destroy,
        ),
        on(GET, "/{machine}/events", Machine(READ), machines::events),
        on(
            GET,
            "/{machine}/versions",
            Machine(READ),
            machines::versions,
        ),
        on(GET, "/{machine}/ps", Machine(READ), usage::processes),
        on(GET, "/{machine}/memory", Machine(READ), usage::memory),
        on(PUT, "/{machine}/memory", Machine(WRITE), usage::set_memory),
        on(
            POST,
            "/{machine}/memory/reclaim",
            Machine(WRITE),
            usage::reclaim,
        ),
        on(GET, "/{machine}/wait", Machine(READ), ops::wait),
        on(POST, "/{machine}/start", Machine(CONTROL), ops::start),
        on(POST, "/{machine}/stop", Machine(CONTROL), ops::stop),
        on(POST, "/{machine}/suspend", Machine(CONTROL), ops::suspend),
        on(POST, "/{machine}/restart", Machine(CONTROL), ops::restart),
        on(POST, "/{machine}/signal", Machine(CONTROL), ops::signal),
        on(POST, "/{machine}/exec", Exec, ops::exec),
        on(POST, "/{machine}/session", Exec, session::open),
        on(GET, "/{machine}/tunnel", Machine(WRITE), session::tunnel),
        on(POST, "/{machine}/cordon", Machine(CONTROL), ops::cordon),
        on(POST, "/{machine}/uncordon", Machine(CONTROL), ops::uncordon),
        on(GET, "/{machine}/lease", Machine(READ), lease::show),
        on(POST, "/{machine}/lease", Machine(CONTROL), lease::take),
        on(
            METHOD_DELETE,
            "/{machine}/lease",
            Machine(CONTROL),
            lease::release,
        ),
    ]
}

fn metadata_rows() -> Vec<Row> {
    vec![
        on(GET, "", Machine(READ), metadata::all),
        on(PATCH, "", Machine(WRITE), metadata::merge),
        on(PUT, "", Machine(WRITE), metadata::merge),
        on(GET, "/{key}", Machine(READ), metadata::show),
        on(POST, "/{key}", Machine(WRITE), metadata::set),
        on(METHOD_DELETE, "/{key}", Machine(WRITE), metadata::unset),
    ]
}
