//! The rows of an app: itself, its secrets, releases, deployments and logs.

use hangar_api::deployment::{DeployEvent, DeployPreview, Deployment};
use hangar_api::logs::LogLine;
use hangar_api::watch::{DeploymentNews, End, MachineNews, Ready, ReleaseNews};

use super::super::answers::{DeployTokenMade, SecretSet, SecretsVersion};
use super::super::described::{Asked, doc, schema_of};
use super::super::guard::Need::{App, Body, Deploy, Listed, Tokens};
use super::super::{
    absent, apps, deployments, events, formation, ips, logs, releases, secrets, tokens, watch,
};
use super::{CREATE, DELETE, GET, HOST, LIMITED, METHOD_DELETE, POST, PUT, READ, Row, WRITE, on};

/// What the lines of a log are chosen by.
const LOGS: &[Asked] = &[
    ("group", "text", "Only lines of this process group."),
    ("machine", "text", "Only lines of this Machine."),
    ("region", "text", "Only lines of this region."),
    (
        "tail",
        "integer",
        "So many of the newest lines first; 100 when absent, at most 10000.",
    ),
    ("follow", "boolean", "Then new lines as they come."),
    ("since", "date-time", "Only lines after this time."),
];
/// Where a stream goes on.
const RESUMED: &[Asked] = &[(
    "Last-Event-ID",
    "text",
    "Goes on behind the event of this id.",
)];

pub(super) fn app_rows() -> Vec<Row> {
    [
        own_token_rows(),
        own_rows(),
        secret_rows(),
        release_rows(),
        deployment_rows(),
        other_rows(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn own_token_rows() -> Vec<Row> {
    vec![
        on(
            GET,
            "/{app}/tokens",
            Tokens(READ),
            tokens::of_app,
            doc("App_Tokens_list", "List the tokens of an app"),
        ),
        on(
            POST,
            "/{app}/tokens",
            Tokens(CREATE),
            tokens::for_app,
            doc("App_Tokens_create", "Create a token of an app")
                .status(201)
                .fails(&[422]),
        ),
        on(
            POST,
            "/{app}/deploy_token",
            Tokens(CREATE),
            tokens::deploy_token,
            doc("App_create_deploy_token", "Create a deploy token of an app")
                .gives::<DeployTokenMade>()
                .fails(&[422]),
        ),
    ]
}

fn own_rows() -> Vec<Row> {
    vec![
        on(GET, "", Listed, apps::list, doc("Apps_list", "List apps")),
        on(
            POST,
            "",
            Body,
            apps::create,
            doc("Apps_create", "Create an app")
                .status(201)
                .fails(&[403, 404, 422]),
        ),
        on(
            GET,
            "/{app}",
            App(READ),
            apps::show,
            doc("Apps_show", "Get an app"),
        ),
        on(
            METHOD_DELETE,
            "/{app}",
            App(DELETE),
            apps::destroy,
            doc("Apps_delete", "Destroy an app").status(202),
        ),
    ]
}

fn secret_rows() -> Vec<Row> {
    vec![
        on(
            GET,
            "/{app}/secrets",
            App(READ),
            secrets::list,
            doc("Secrets_list", "List the secrets of an app").fails(&[412]),
        ),
        on(
            POST,
            "/{app}/secrets",
            App(WRITE),
            secrets::update,
            doc("Secrets_update", "Set and unset secrets").fails(&[422]),
        ),
        on(
            GET,
            "/{app}/secrets/{name}",
            App(READ),
            secrets::show,
            doc("Secret_get", "Get a secret, without its value").fails(&[412]),
        ),
        on(
            POST,
            "/{app}/secrets/{name}",
            App(WRITE),
            secrets::set,
            doc("Secret_create", "Set a secret")
                .status(201)
                .gives::<SecretSet>()
                .fails(&[422]),
        ),
        on(
            METHOD_DELETE,
            "/{app}/secrets/{name}",
            App(WRITE),
            secrets::unset,
            doc("Secret_delete", "Unset a secret")
                .gives::<SecretsVersion>()
                .fails(&[422]),
        ),
    ]
}

fn release_rows() -> Vec<Row> {
    vec![
        on(
            GET,
            "/{app}/releases",
            App(READ),
            releases::list,
            doc("Releases_list", "List the releases of an app").query(LIMITED),
        ),
        on(
            GET,
            "/{app}/releases/{version}",
            App(READ),
            releases::show,
            doc("Releases_show", "Get a release"),
        ),
    ]
}

fn deployment_rows() -> Vec<Row> {
    vec![
        on(
            GET,
            "/{app}/deployments",
            App(READ),
            deployments::list,
            doc("Deployments_list", "List the deployments of an app").query(LIMITED),
        ),
        on(
            POST,
            "/{app}/deployments",
            Deploy,
            deployments::create,
            doc("Deployments_create", "Deploy")
                .more(
                    "With `dry_run`, what would be done is answered with 200, \
                 and nothing is done.",
                )
                .status(201)
                .gives::<Deployment>()
                .or::<DeployPreview>(200)
                .fails(&[408, 412, 422, 501]),
        ),
        on(
            GET,
            "/{app}/deployments/{id}",
            App(READ),
            deployments::show,
            doc("Deployments_show", "Get a deployment"),
        ),
        on(
            GET,
            "/{app}/deployments/{id}/events",
            App(READ),
            events::follow,
            doc("Deployments_events", "Follow a deployment")
                .more(
                    "Each event is a `DeployEvent`, its id the number of events \
                 so far. The last one is of type `over` and holds the \
                 Deployment.",
                )
                .carries(&[schema_of::<DeployEvent>, schema_of::<Deployment>])
                .headers(RESUMED)
                .query(&[(
                    "from",
                    "integer",
                    "Goes on behind the event of this number.",
                )]),
        ),
        on(
            POST,
            "/{app}/deployments/{id}/cancel",
            App(WRITE),
            deployments::cancel,
            doc("Deployments_cancel", "Cancel a deployment")
                .status(202)
                .fails(&[412]),
        ),
    ]
}

fn other_rows() -> Vec<Row> {
    vec![
        on(
            GET,
            "/{app}/formation",
            App(READ),
            formation::show,
            doc("Formation_show", "Show what each process group should have"),
        ),
        on(
            PUT,
            "/{app}/formation",
            App(WRITE),
            formation::update,
            doc("Formation_update", "Change what process groups should have").fails(&[412, 422]),
        ),
        on(
            GET,
            "/{app}/events",
            App(READ),
            watch::follow,
            doc("Apps_events", "Follow an app")
                .more(
                    "Events are `ready`, `machine`, `release`, `deployment`, \
                 `lagged` and `gone`. The stream ends when the reader \
                 leaves, falls behind, or the app has gone.",
                )
                .carries(&[
                    schema_of::<Ready>,
                    schema_of::<MachineNews>,
                    schema_of::<ReleaseNews>,
                    schema_of::<DeploymentNews>,
                    schema_of::<End>,
                ])
                .headers(RESUMED),
        ),
        on(
            GET,
            "/{app}/logs",
            App(READ),
            logs::read,
            doc("Logs_read", "Read log lines")
                .more("One JSON object a line.")
                .media("application/x-ndjson")
                .gives::<LogLine>()
                .query(LOGS)
                .fails(HOST),
        ),
    ]
}

/// What an app is reached at, and who would be let in.
pub(super) fn address_rows() -> Vec<Row> {
    vec![
        on(
            GET,
            "/{app}/ip_assignments",
            App(READ),
            ips::list,
            doc("App_IPAssignments_list", "List the addresses of an app"),
        ),
        on(
            POST,
            "/{app}/ip_assignments",
            App(WRITE),
            ips::assign,
            doc("App_IPAssignments_create", "Give an app an address").fails(&[412, 422, 501]),
        ),
        on(
            METHOD_DELETE,
            "/{app}/ip_assignments/{ip}",
            App(WRITE),
            ips::release,
            doc("App_IPAssignments_delete", "Take an address from an app")
                .status(204)
                .fails(&[412, 422, 501]),
        ),
        on(
            GET,
            "/{app}/network_policies",
            App(READ),
            absent::network_policies,
            doc("Network_policies_list", "List network policies").refused(),
        ),
        on(
            POST,
            "/{app}/network_policies",
            App(WRITE),
            absent::network_policies,
            doc("Network_policies_create", "Create a network policy").refused(),
        ),
        on(
            METHOD_DELETE,
            "/{app}/network_policies/{id}",
            App(WRITE),
            absent::network_policies,
            doc("Network_policies_delete", "Delete a network policy").refused(),
        ),
    ]
}

/// Keys that never leave a service for them, which Hangar has not.
pub(super) fn secret_key_rows() -> Vec<Row> {
    let refused = absent::secret_keys;
    vec![
        on(
            GET,
            "",
            App(READ),
            refused,
            doc("Secretkeys_list", "List secret keys").refused(),
        ),
        on(
            GET,
            "/{name}",
            App(READ),
            refused,
            doc("Secretkey_get", "Get a secret key").refused(),
        ),
        on(
            POST,
            "/{name}",
            App(WRITE),
            refused,
            doc("Secretkey_set", "Set a secret key").refused(),
        ),
        on(
            METHOD_DELETE,
            "/{name}",
            App(WRITE),
            refused,
            doc("Secretkey_delete", "Delete a secret key").refused(),
        ),
        on(
            POST,
            "/{name}/{action}",
            App(WRITE),
            refused,
            doc(
                "Secretkey_use",
                "Encrypt, decrypt, sign, verify or generate with a secret key",
            )
            .refused(),
        ),
    ]
}
