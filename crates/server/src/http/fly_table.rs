//! The rows of the table that flyctl asks beside the Machines API.

use axum::http::Method;
use hangar_api::rights::Action;

use super::described::{Asked, doc};
use super::guard::Need::{App, Body, Listed, Open, Org, Token};
use super::table::{HOST, LIMITED, Row, on};
use super::{absent, fly_logs, uiex};

const GET: Method = Method::GET;
const POST: Method = Method::POST;
const PATCH: Method = Method::PATCH;
const READ: Action = Action::READ;
const WRITE: Action = Action::WRITE;

/// What a page of log lines is chosen by.
const PAGES_OF_LOGS: &[Asked] = &[
    ("instance", "text", "Only lines of this Machine."),
    ("region", "text", "Only lines of this region."),
    (
        "next_token",
        "text",
        "Goes on behind the page that gave it.",
    ),
];

/// Returns them.
pub(super) fn rows() -> Vec<Row> {
    [
        login_rows(),
        organization_rows(),
        build_rows(),
        release_rows(),
        other_rows(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn login_rows() -> Vec<Row> {
    vec![
        // Before it has a token, or with another one.
        on(
            POST,
            "/api/v1/cli_sessions",
            Open,
            absent::login,
            doc("Cli_sessions_create", "Begin a login in a browser").refused(),
        ),
        on(
            POST,
            "/api/v1/sessions",
            Open,
            absent::login,
            doc("Sessions_create", "Log in with a password").refused(),
        ),
        on(
            POST,
            "/metrics_post",
            Open,
            absent::metrics,
            doc("Metrics_post", "Report how a client is used").more("Read and thrown away."),
        ),
    ]
}

fn organization_rows() -> Vec<Row> {
    vec![
        on(
            GET,
            "/api/v1/organizations",
            Listed,
            uiex::organizations,
            doc(
                "Ui_organizations_list",
                "List organizations as flyctl reads them",
            ),
        ),
        on(
            GET,
            "/api/v1/organizations/{slug}",
            Org(READ),
            uiex::organization,
            doc(
                "Ui_organizations_show",
                "Get an organization as flyctl reads it",
            ),
        ),
        on(
            POST,
            "/api/v1/organizations/{slug}/builders",
            Org(WRITE),
            absent::builder,
            doc("Ui_builders_create", "Create a builder").refused(),
        ),
    ]
}

fn build_rows() -> Vec<Row> {
    vec![
        on(
            POST,
            "/api/v1/builds",
            Body,
            uiex::start_build,
            doc("Ui_builds_create", "Begin a build").fails(&[403, 404]),
        ),
        on(
            POST,
            "/api/v1/builds/finish",
            Body,
            uiex::finish_build,
            doc("Ui_builds_finish", "End a build").fails(&[403, 404]),
        ),
        on(
            POST,
            "/api/v1/builds/depot_builder",
            Token,
            absent::builder,
            doc("Ui_depot_builder_create", "Ask for a Depot builder").refused(),
        ),
    ]
}

fn release_rows() -> Vec<Row> {
    vec![
        on(
            POST,
            "/api/v1/releases",
            Body,
            uiex::make_release,
            doc(
                "Ui_releases_create",
                "Begin a deploy that the client carries out",
            )
            .status(201)
            .fails(&[403, 404, 408, 412, 422, 501]),
        ),
        on(
            GET,
            "/api/v1/releases/all_current",
            Listed,
            uiex::current_releases,
            doc(
                "Ui_releases_all_current",
                "List the newest release of each app",
            ),
        ),
        on(
            PATCH,
            "/api/v1/releases/{id}",
            Body,
            uiex::report_release,
            doc("Ui_releases_update", "Report on such a deploy").fails(&[404, 412]),
        ),
        on(
            GET,
            "/api/v1/apps/{app}/releases",
            App(READ),
            uiex::releases,
            doc("Ui_app_releases_list", "List releases as flyctl reads them").query(LIMITED),
        ),
        on(
            GET,
            "/api/v1/apps/{app}/releases/current",
            App(READ),
            uiex::current_release,
            doc("Ui_app_releases_current", "Get the newest release"),
        ),
    ]
}

fn other_rows() -> Vec<Row> {
    vec![
        on(
            GET,
            "/api/v1/apps/{app}/logs",
            App(READ),
            fly_logs::read,
            doc("Ui_app_logs_read", "Read a page of log lines")
                .query(PAGES_OF_LOGS)
                .fails(HOST),
        ),
        on(
            POST,
            "/api/v1/apps/{app}/egress_ips/{ip}/promote",
            App(WRITE),
            absent::egress,
            doc("Ui_egress_ips_promote", "Promote an egress address").refused(),
        ),
    ]
}
