//! `/v1/tokens` (machines-api.md 2.7), and the tokens of organisations and apps, which are
//! Hangar's own beside Fly's GraphQL.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hangar_api::duration::GoDuration;
use hangar_api::id::{AppName, MachineId, OrgSlug};
use hangar_api::macaroon;
use hangar_api::rights::{Access, Action};
use hangar_api::token::{
    CreateToken, CurrentTokens, TokenCreated, TokenInfo, TokenKind, TokenList,
};
use hangar_store::tables::{Apps, MachineHomes, Orgs, Volumes};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::extract::{AppPath, Asker, LastPart, Lenient, SlugPath};
use crate::auth::tokens::{self, Of};
use crate::auth::{self, Caller, caller, verify};
use crate::core::Core;
use crate::error::Problem;

type Made = Result<(StatusCode, Json<TokenCreated>), Problem>;

pub(super) async fn of_org(
    State(core): State<Arc<Core>>,
    SlugPath(slug): SlugPath,
    Asker(caller): Asker,
) -> Result<Json<TokenList>, Problem> {
    let tokens = tokens::list(&core, &caller, &Of::Org(slug))?;
    Ok(Json(TokenList { tokens }))
}

pub(super) async fn of_app(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
    Asker(caller): Asker,
) -> Result<Json<TokenList>, Problem> {
    let tokens = tokens::list(&core, &caller, &Of::App(app))?;
    Ok(Json(TokenList { tokens }))
}

pub(super) async fn for_org(
    State(core): State<Arc<Core>>,
    SlugPath(slug): SlugPath,
    Asker(caller): Asker,
    Lenient(input): Lenient<CreateToken>,
) -> Made {
    let made = tokens::create(&core, &caller, &Of::Org(slug), input).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

pub(super) async fn for_app(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
    Asker(caller): Asker,
    Lenient(input): Lenient<CreateToken>,
) -> Made {
    let made = tokens::create(&core, &caller, &Of::App(app), input).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

/// Body of `deploy_token`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(super) struct DeployToken {
    #[serde(default)]
    expiry: Option<String>,
}

pub(super) async fn deploy_token(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
    Asker(caller): Asker,
    Lenient(input): Lenient<DeployToken>,
) -> Result<Json<Value>, Problem> {
    let given = input.expiry.filter(|text| !text.is_empty());
    let expiry = given.map(|text| {
        text.parse::<GoDuration>()
            .map_err(|error| Problem::Invalid(format!("invalid_argument: expiry: {error}")))
    });
    let input = CreateToken {
        kind: Some(TokenKind::Deploy),
        expiry: expiry.transpose()?,
        ..CreateToken::default()
    };
    let made = tokens::create(&core, &caller, &Of::App(app), input).await?;
    // As Fly says it: to be put into a header as it is.
    Ok(Json(json!({"token": format!("FlyV1 {}", made.token)})))
}

pub(super) async fn revoke(
    State(core): State<Arc<Core>>,
    LastPart(id): LastPart,
    Asker(caller): Asker,
) -> Result<Json<TokenInfo>, Problem> {
    tokens::revoke(&core, &caller, &id).await.map(Json)
}

pub(super) async fn current(
    State(core): State<Arc<Core>>,
    Asker(caller): Asker,
) -> Json<CurrentTokens> {
    Json(CurrentTokens {
        tokens: tokens::current(&core, &caller),
    })
}

/// Body of `authenticate`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(super) struct Authenticate {
    #[serde(default)]
    header: String,
}

pub(super) async fn authenticate(
    State(core): State<Arc<Core>>,
    Lenient(body): Lenient<Authenticate>,
) -> Result<Json<Vec<Value>>, Problem> {
    let good = verified(&core, &body.header)?;
    Ok(Json(good.into_iter().map(|(shown, _)| shown).collect()))
}

/// Body of `authorize`: names in place of the numbers that caveats have.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(super) struct Authorize {
    #[serde(default)]
    header: String,
    #[serde(default)]
    access: NamedAccess,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
struct NamedAccess {
    action: Option<Action>,
    org_slug: Option<String>,
    app_name: Option<String>,
    volume_id: Option<String>,
    machine_id: Option<String>,
    org_feature: Option<String>,
    app_feature: Option<String>,
    machine_feature: Option<String>,
    mutation: Option<String>,
    source_machine: Option<String>,
    command: Option<Vec<String>>,
    storage_object: Option<String>,
}

pub(super) async fn authorize(
    State(core): State<Arc<Core>>,
    Lenient(body): Lenient<Authorize>,
) -> Result<Json<Value>, Problem> {
    let good = verified(&core, &body.header)?;
    let access = resolved(&core, body.access)?;
    let mut refused = None;
    for (shown, token) in good {
        match token.require(&access, "this") {
            Ok(()) => {
                return Ok(Json(
                    json!({"access": wire(&access), "verified_token": shown}),
                ));
            }
            Err(problem) => refused = refused.or(Some(problem)),
        }
    }
    Err(refused.unwrap_or(Problem::Unauthorized))
}

/// Returns the good tokens of a header as Fly shows them, with what each grants.
fn verified(core: &Core, header: &str) -> Result<Vec<(Value, Caller)>, Problem> {
    let mut good = Vec::new();
    for text in verify::listed(header) {
        let Some(caller) = auth::of_tokens(core, std::slice::from_ref(&text)) else {
            continue;
        };
        let caveats = caller.tokens().iter().flat_map(|token| &token.caveats);
        let mut shown = json!({"caveats": caveats.collect::<Vec<_>>(), "header": text});
        let bytes = text.strip_prefix(macaroon::PREFIX);
        // Base64 of the whole token, by which clients know which one it is.
        shown["permission_token"] = match bytes {
            Some(encoded) => encoded.into(),
            None => BASE64.encode(&text).into(),
        };
        good.push((shown, caller));
    }
    if good.is_empty() {
        return Err(Problem::Invalid(Problem::Unauthorized.to_string()));
    }
    Ok(good)
}

/// Returns the access that names mean.
fn resolved(core: &Core, named: NamedAccess) -> Result<Access, Problem> {
    let snapshot = core.cache.snapshot();
    let action = named.action.unwrap_or_default();
    let mut app = named.app_name.clone();
    if let (None, Some(machine)) = (&app, &named.machine_id) {
        let id = MachineId::new(machine.as_str())
            .map_err(|error| Problem::InvalidMachineId(error.value))?;
        let home = snapshot.get::<MachineHomes>(&id);
        app = Some(home.ok_or(Problem::MachineNotFound)?.value.app.to_string());
    }
    if let (None, Some(volume)) = (&app, &named.volume_id) {
        let mut all = snapshot.all::<Volumes>();
        let found = all.find(|record| record.key.1.as_str() == volume);
        app = Some(
            found
                .ok_or_else(crate::volumes::not_found)?
                .key
                .0
                .to_string(),
        );
    }
    let mut access = match app {
        Some(name) => {
            let missing = || Problem::AppNotFound(name.clone());
            let key = AppName::new(name.as_str()).map_err(|_| missing())?;
            let record = snapshot.get::<Apps>(&key).ok_or_else(missing)?;
            caller::app(&snapshot, &record.value, action)
        }
        None => caller::platform(action),
    };
    if let Some(slug) = &named.org_slug {
        let missing = || Problem::OrgNotFound(slug.clone());
        let key = OrgSlug::new(slug.as_str()).map_err(|_| missing())?;
        let org = snapshot.get::<Orgs>(&key).ok_or_else(missing)?.value.number;
        if access.org.is_some_and(|of_app| of_app != org) {
            return Err(invalid("the app is of another organization than org_slug"));
        }
        access.org = Some(org);
    }
    if access.org.is_none() {
        return Err(invalid(
            "access names no organization, app, machine or volume",
        ));
    }
    if named.storage_object.is_some() {
        return Err(invalid("there are no storage objects here"));
    }
    if let (Some(id), Some(app)) = (&named.machine_id, access.app) {
        let id =
            MachineId::new(id.as_str()).map_err(|error| Problem::InvalidMachineId(error.value))?;
        let home = snapshot
            .get::<MachineHomes>(&id)
            .ok_or(Problem::MachineNotFound)?;
        let record = snapshot.get::<Apps>(&home.value.app);
        let record = record.filter(|record| record.value.number == app);
        let record = record.ok_or(Problem::MachineNotFound)?;
        access = caller::machine(&snapshot, &record.value, &id, action);
    }
    Ok(Access {
        volume: named.volume_id,
        feature: named.org_feature,
        app_feature: named.app_feature,
        machine_feature: named.machine_feature,
        mutation: named.mutation,
        source_machine: named.source_machine,
        command: named.command,
        ..access
    })
}

fn invalid(text: &str) -> Problem {
    Problem::Invalid(format!("invalid_argument: {text}"))
}

/// Returns an access as Fly writes it (`flyio/access.go`).
fn wire(access: &Access) -> Value {
    let fields = [
        ("action", json!(access.action)),
        ("orgid", json!(access.org)),
        ("appid", json!(access.app)),
        ("app_feature", json!(access.app_feature)),
        ("feature", json!(access.feature)),
        ("volume", json!(access.volume)),
        ("machine", json!(access.machine)),
        ("machine_feature", json!(access.machine_feature)),
        ("mutation", json!(access.mutation)),
        ("sourceMachine", json!(access.source_machine)),
        ("command", json!(access.command)),
    ];
    let there = fields.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(
        there
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    )
}
