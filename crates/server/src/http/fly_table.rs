//! The rows of the table that flyctl asks beside the Machines API.

use axum::http::Method;
use hangar_api::rights::Action;

use super::guard::Need::{App, Body, Listed, Open, Org, Token};
use super::table::{Row, on};
use super::{absent, fly_logs, uiex};

const GET: Method = Method::GET;
const POST: Method = Method::POST;
const PATCH: Method = Method::PATCH;
const READ: Action = Action::READ;
const WRITE: Action = Action::WRITE;

/// Returns them.
pub(super) fn rows() -> Vec<Row> {
    vec![
        // Before it has a token, or with another one.
        on(POST, "/api/v1/cli_sessions", Open, absent::login),
        on(POST, "/api/v1/sessions", Open, absent::login),
        on(POST, "/metrics_post", Open, absent::metrics),
        on(GET, "/api/v1/organizations", Listed, uiex::organizations),
        on(
            GET,
            "/api/v1/organizations/{slug}",
            Org(READ),
            uiex::organization,
        ),
        on(
            POST,
            "/api/v1/organizations/{slug}/builders",
            Org(WRITE),
            absent::builder,
        ),
        on(POST, "/api/v1/builds", Body, uiex::start_build),
        on(POST, "/api/v1/builds/finish", Body, uiex::finish_build),
        on(POST, "/api/v1/builds/depot_builder", Token, absent::builder),
        on(POST, "/api/v1/releases", Body, uiex::make_release),
        on(
            GET,
            "/api/v1/releases/all_current",
            Listed,
            uiex::current_releases,
        ),
        on(PATCH, "/api/v1/releases/{id}", Body, uiex::report_release),
        on(
            GET,
            "/api/v1/apps/{app}/releases",
            App(READ),
            uiex::releases,
        ),
        on(
            GET,
            "/api/v1/apps/{app}/releases/current",
            App(READ),
            uiex::current_release,
        ),
        on(GET, "/api/v1/apps/{app}/logs", App(READ), fly_logs::read),
        on(
            POST,
            "/api/v1/apps/{app}/egress_ips/{ip}/promote",
            App(WRITE),
            absent::egress,
        ),
    ]
}
