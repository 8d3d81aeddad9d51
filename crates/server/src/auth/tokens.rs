//! Making, listing and revoking tokens. Free of HTTP: other surfaces of the server use it too.

use std::collections::BTreeMap;
use std::sync::Arc;

use hangar_api::Timestamp;
use hangar_api::id::{AppName, GroupName, OrgSlug};
use hangar_api::macaroon::{Macaroon, NONCE_LEN};
use hangar_api::rights::{
    Access, Action, AllowedCommand, Caveat, FEATURE_BUILDER, FEATURE_TOKENS, FEATURE_WIREGUARD,
    Masks,
};
use hangar_api::token::{CreateToken, CurrentToken, TokenCreated, TokenInfo, TokenKind};
use hangar_store::tables::{AppNumbers, Apps, OrgRecord, Orgs, TokenRecord, Tokens};
use hangar_store::{Record, Snapshot, StoreError, Txn};
use jiff::SignedDuration;

use super::caller::{self, Caller, Grant};
use super::{MAX_GENERATIONS, opaque, verify};
use crate::core::{Core, MAX_TRIES, too_contended};
use crate::error::Problem;

/// How long a token is good unless told otherwise, as on Fly: 20 years.
const EXPIRY: SignedDuration = SignedDuration::from_hours(175_200);
/// And at most.
const MAX_EXPIRY: SignedDuration = SignedDuration::from_hours(876_000);
/// Most tokens of an organisation that are neither revoked nor over.
const MAX_TOKENS: usize = 1000;
/// Longest name.
const MAX_NAME: usize = 100;
/// Most commands that a token is for, and most words of one.
const MAX_COMMANDS: usize = 32;
/// Tokens that are revoked or over are listed so long.
const LISTED_AFTER: SignedDuration = SignedDuration::from_hours(30 * 24);

/// What a token is to be of.
#[derive(Clone, Debug)]
pub(crate) enum Of {
    /// An organisation.
    Org(OrgSlug),
    /// An app.
    App(AppName),
}

/// What a token may touch.
struct Scope {
    slug: OrgSlug,
    org: OrgRecord,
    /// Name and number.
    app: Option<(AppName, u64)>,
}

/// Makes a token that may at most what the caller may. Its text is in the answer, and nowhere
/// else. Whether the caller may make tokens there at all is checked here too.
pub(crate) async fn create(
    core: &Core,
    caller: &Caller,
    of: &Of,
    input: CreateToken,
) -> Result<TokenCreated, Problem> {
    let now = core.env.now();
    let (scope, maker) = {
        let snapshot = core.cache.snapshot();
        let scope = scope(&snapshot, of)?;
        let maker = maker(caller, &scope)?.clone();
        if generation(&snapshot, &maker) >= MAX_GENERATIONS {
            return Err(Problem::Unprocessable(
                "this token was made by one that was made by one, and so on: use an earlier one"
                    .to_owned(),
            ));
        }
        (scope, maker)
    };
    let kind = kind(&scope, &input)?;
    let expires_at = expiry(now, &input)?;
    let mut caveats = vec![Caveat::ValidityWindow {
        not_before: now.as_second(),
        not_after: expires_at.as_second(),
    }];
    for caveat in maker
        .caveats
        .iter()
        .cloned()
        .chain(limits(&scope, kind, &input)?)
    {
        if !caveats.contains(&caveat) {
            caveats.push(caveat);
        }
    }
    let name = name(&input, kind)?;
    let maker_user = &maker.record.value.user;
    let record = TokenRecord {
        id: core.env.ulid().to_string().to_lowercase(),
        user: format!("{maker_user}/{name}"),
        name,
        created_at: now,
        expires_at: Some(expires_at),
        kind,
        org: Some(scope.slug.clone()),
        app: scope.app.map(|(name, _)| name),
        made_by: maker_user.clone(),
        // The admin's own token is replaced by removing its file, which revokes nothing else.
        parent: (maker.record.value.kind != TokenKind::Admin).then(|| maker.key.clone()),
        caveats,
        key_id: match input.opaque {
            true => None,
            false => Some(core.keyring.current_id()?),
        },
        revoked_at: None,
    };
    let (key, token) = text(core, &record)?;
    store(core, &scope.slug, &key, &record).await?;
    tracing::info!(token = %record.id, org = %scope.slug, by = %record.made_by, "token made");
    Ok(TokenCreated {
        token,
        info: info(&record),
    })
}

/// Returns organisation and app.
fn scope(snapshot: &Snapshot, of: &Of) -> Result<Scope, Problem> {
    let (slug, app) = match of {
        Of::Org(slug) => (slug.clone(), None),
        Of::App(name) => {
            let app = snapshot.get::<Apps>(name).filter(|app| !app.value.deleting);
            let app = app.ok_or_else(|| Problem::AppNotFound(name.to_string()))?;
            let named = (name.clone(), app.value.number);
            (app.value.org.clone(), Some(named))
        }
    };
    let org = snapshot.get::<Orgs>(&slug).filter(|org| !org.value.closing);
    let org = org.ok_or_else(|| Problem::OrgNotFound(slug.to_string()))?;
    Ok(Scope {
        slug,
        org: org.value.clone(),
        app,
    })
}

/// Returns the access to the tokens of an organisation.
pub(crate) fn access(org: &OrgRecord, action: Action) -> Access {
    Access {
        feature: Some(FEATURE_TOKENS.to_owned()),
        ..caller::org(org, action)
    }
}

/// Returns the token that the new one is made with: the first that may.
fn maker<'a>(caller: &'a Caller, scope: &Scope) -> Result<&'a Grant, Problem> {
    let access = access(&scope.org, Action::CREATE);
    let what = format!("the tokens of organization {}", scope.slug);
    caller.require(&access, &what)?;
    let found = caller
        .tokens()
        .iter()
        .find(|one| caller.one_may(one, &access));
    found.ok_or(Problem::Unauthorized)
}

fn generation(snapshot: &Snapshot, maker: &Grant) -> usize {
    let mut parent = maker.record.value.parent.clone();
    let mut generation = 0;
    while let Some(key) = parent.take().filter(|_| generation <= MAX_GENERATIONS) {
        generation += 1;
        parent = snapshot
            .get::<Tokens>(&key)
            .and_then(|record| record.value.parent.clone());
    }
    generation
}

fn kind(scope: &Scope, input: &CreateToken) -> Result<TokenKind, Problem> {
    use TokenKind::{Deploy, Exec, Org, Readonly};
    let kind = match (&scope.app, input.kind) {
        (None, None | Some(Org)) => Org,
        (Some(_), None | Some(Deploy)) => Deploy,
        (_, Some(Readonly)) => Readonly,
        (Some(_), Some(Exec)) => Exec,
        (None, Some(_)) => return Err(invalid("a token of an organization is org or readonly")),
        (Some(_), Some(_)) => {
            return Err(invalid("a token of an app is deploy, readonly or exec"));
        }
    };
    if kind != Exec && (input.group.is_some() || input.commands.is_some()) {
        return Err(invalid(
            "group and commands are for tokens of the kind exec",
        ));
    }
    Ok(kind)
}

fn invalid(text: &str) -> Problem {
    Problem::Invalid(format!("invalid_argument: {text}"))
}

fn expiry(now: Timestamp, input: &CreateToken) -> Result<Timestamp, Problem> {
    let length = match input.expiry {
        Some(length) => SignedDuration::from_nanos(length.nanos()),
        None => EXPIRY,
    };
    if length < SignedDuration::from_secs(1) || length > MAX_EXPIRY {
        return Err(invalid("expiry is a duration from 1s to 876000h"));
    }
    now.checked_add(length)
        .map_err(|error| invalid(&format!("expiry: {error}")))
}

fn name(input: &CreateToken, kind: TokenKind) -> Result<String, Problem> {
    let given = input.name.as_deref().unwrap_or_default().trim();
    let printable = given.chars().all(|c| !c.is_control());
    if given.chars().count() > MAX_NAME || !printable {
        return Err(invalid(
            "a token's name is at most 100 printable characters",
        ));
    }
    let usual = match kind {
        TokenKind::Admin | TokenKind::Org => "org token",
        TokenKind::Deploy => "deploy token",
        TokenKind::Readonly => "read-only token",
        TokenKind::Exec => "exec token",
    };
    Ok(if given.is_empty() { usual } else { given }.to_owned())
}

/// Returns the caveats of a kind. Those of an app are as Fly makes them: what is neither the app
/// nor one of these features of the organisation may be read, so that clients find their way.
fn limits(scope: &Scope, kind: TokenKind, input: &CreateToken) -> Result<Vec<Caveat>, Problem> {
    let mask = match kind {
        TokenKind::Readonly => Action::READ,
        _ => Action::EVERYTHING,
    };
    let mut caveats = vec![Caveat::Organization {
        id: scope.org.number,
        mask,
    }];
    let Some((_, number)) = &scope.app else {
        return Ok(caveats);
    };
    let apps = Caveat::Apps(BTreeMap::from([(*number, mask)]));
    if kind == TokenKind::Exec {
        caveats.push(apps);
        caveats.extend(input.group.as_ref().map(only_group));
        caveats.push(Caveat::IfPresent {
            ifs: vec![Caveat::Commands(commands(input)?)],
            otherwise: Action::READ,
        });
        return Ok(caveats);
    }
    let features: Masks<String> = [FEATURE_BUILDER, FEATURE_WIREGUARD]
        .into_iter()
        .filter(|_| kind == TokenKind::Deploy)
        .map(|feature| (feature.to_owned(), Action::EVERYTHING))
        .collect();
    caveats.push(Caveat::IfPresent {
        ifs: vec![apps, Caveat::FeatureSet(features)],
        otherwise: Action::READ,
    });
    Ok(caveats)
}

fn only_group(group: &GroupName) -> Caveat {
    Caveat::Groups(BTreeMap::from([(group.to_string(), Action::EVERYTHING)]))
}

fn commands(input: &CreateToken) -> Result<Vec<AllowedCommand>, Problem> {
    let commands = input.commands.clone().unwrap_or_default();
    if commands.len() > MAX_COMMANDS || commands.iter().any(|one| one.args.len() > MAX_COMMANDS) {
        return Err(invalid("a token is for at most 32 commands of 32 words"));
    }
    if commands.is_empty() {
        return Ok(vec![AllowedCommand::default()]);
    }
    Ok(commands)
}

/// Returns key and text of a token.
fn text(core: &Core, record: &TokenRecord) -> Result<(String, String), Problem> {
    let Some(key_id) = &record.key_id else {
        let token = opaque(&core.env);
        return Ok((verify::hash(&token), token));
    };
    let internal = |what: String| Problem::Internal(format!("make a token: {what}"));
    let key = core.keyring.macaroon_key(key_id, &record.id);
    let key = key.ok_or_else(|| internal(format!("the keyring has no key {key_id}")))?;
    let mut random = [0; NONCE_LEN];
    core.env.secret_bytes(&mut random);
    let mut token = Macaroon::mint(record.id.as_bytes(), &random, &key);
    for caveat in &record.caveats {
        let added = token.add(caveat);
        added.map_err(|error| Problem::Unprocessable(format!("make a token: {error}")))?;
    }
    Ok((record.id.clone(), token.text()))
}

async fn store(
    core: &Core,
    slug: &OrgSlug,
    key: &str,
    record: &TokenRecord,
) -> Result<(), Problem> {
    let now = core.env.now();
    for _ in 0..MAX_TRIES {
        let snapshot = core.cache.snapshot();
        let org = snapshot.get::<Orgs>(slug).filter(|org| !org.value.closing);
        let org = org.cloned();
        let org = org.ok_or_else(|| Problem::OrgNotFound(slug.to_string()))?;
        let alive = of_org(&snapshot, slug).filter(|one| !is_over(&one.value, now));
        if alive.count() >= MAX_TOKENS {
            return Err(Problem::Exhausted(format!(
                "organization {slug} has {MAX_TOKENS} tokens, the most there may be; revoke some"
            )));
        }
        drop(snapshot);
        let txn = Txn::new()
            .create::<Tokens>(&key.to_owned(), record)
            .check_same::<Orgs>(&org);
        if core.try_commit(txn).await?.is_some() {
            return Ok(());
        }
    }
    Err(too_contended())
}

fn is_over(token: &TokenRecord, now: Timestamp) -> bool {
    token.revoked_at.is_some() || token.expires_at.is_some_and(|end| end <= now)
}

fn of_org<'a>(
    snapshot: &'a Snapshot,
    slug: &'a OrgSlug,
) -> impl Iterator<Item = &'a Arc<Record<Tokens>>> {
    let all = snapshot.all::<Tokens>();
    all.filter(|record| record.value.org.as_ref() == Some(slug))
}

/// Returns the tokens of an organisation with those of its apps, or of one app, oldest first, to
/// one who may see them.
pub(crate) fn list(core: &Core, caller: &Caller, of: &Of) -> Result<Vec<TokenInfo>, Problem> {
    let snapshot = core.cache.snapshot();
    let scope = scope(&snapshot, of)?;
    let what = format!("the tokens of organization {}", scope.slug);
    caller.require(&access(&scope.org, Action::READ), &what)?;
    let mut tokens: Vec<TokenInfo> = snapshot
        .all::<Tokens>()
        .filter(|record| match of {
            Of::Org(slug) => record.value.org.as_ref() == Some(slug),
            Of::App(app) => record.value.app.as_ref() == Some(app),
        })
        .map(|record| info(&record.value))
        .collect();
    tokens.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(tokens)
}

fn info(record: &TokenRecord) -> TokenInfo {
    TokenInfo {
        id: record.id.clone(),
        name: record.name.clone(),
        kind: record.kind,
        org_slug: record.org.clone(),
        app: record.app.clone(),
        user: record.made_by.clone(),
        created_at: record.created_at,
        expires_at: record.expires_at,
        revoked_at: record.revoked_at,
        caveats: record.caveats.clone(),
    }
}

fn by_id(snapshot: &Snapshot, id: &str) -> Option<Arc<Record<Tokens>>> {
    // The admin token has none.
    let mut all = snapshot.all::<Tokens>().filter(|_| !id.is_empty());
    all.find(|record| record.value.id == id).cloned()
}

/// Revokes a token, and with it those that it has made. A token may revoke itself. One whose
/// organisation's tokens the caller may not see is not there. May be repeated.
pub(crate) async fn revoke(core: &Core, caller: &Caller, id: &str) -> Result<TokenInfo, Problem> {
    for _ in 0..MAX_TRIES {
        let missing = || Problem::NotFound(format!("there is no token {id:?} that you may revoke"));
        let snapshot = core.cache.snapshot();
        let record = by_id(&snapshot, id).ok_or_else(missing)?;
        let own = caller.tokens().iter().any(|one| one.key == record.key);
        let org = record
            .value
            .org
            .as_ref()
            .and_then(|slug| snapshot.get::<Orgs>(slug));
        let org = org.cloned().ok_or_else(missing)?;
        drop(snapshot);
        if !own {
            if !caller.may(&access(&org.value, Action::READ)) {
                return Err(missing());
            }
            let what = format!("the tokens of organization {}", org.key);
            caller.require(&access(&org.value, Action::DELETE), &what)?;
        }
        if record.value.revoked_at.is_some() {
            return Ok(info(&record.value));
        }
        let revoked = TokenRecord {
            revoked_at: Some(core.env.now()),
            ..record.value.clone()
        };
        let txn = Txn::new().update(&record, &revoked);
        if core.try_commit(txn).await?.is_some() {
            tracing::info!(token = id, by = caller.user(), "token revoked");
            return Ok(info(&revoked));
        }
    }
    Err(too_contended())
}

/// Returns the writes that forget the tokens which have long been revoked or over, those of apps
/// that are gone, and those of organisations that are.
pub(crate) fn forgotten(snapshot: &Snapshot, now: Timestamp) -> Vec<Txn> {
    let is_gone = |token: &TokenRecord| {
        let app = token.app.as_ref();
        let org = token.org.as_ref();
        app.is_some_and(|app| snapshot.get::<Apps>(app).is_none())
            || org.is_some_and(|org| snapshot.get::<Orgs>(org).is_none())
    };
    let is_old = |token: &TokenRecord| {
        let ends = [token.revoked_at, token.expires_at].into_iter().flatten();
        ends.min()
            .is_some_and(|end| now.duration_since(end) > LISTED_AFTER)
    };
    snapshot
        .all::<Tokens>()
        .filter(|record| is_gone(&record.value) || is_old(&record.value))
        .map(|record| Txn::new().remove::<Tokens>(record))
        .collect()
}

/// Returns what a request's tokens are, for [`hangar_api::token::CurrentTokens`].
pub(crate) fn current(core: &Core, caller: &Caller) -> Vec<CurrentToken> {
    let snapshot = core.cache.snapshot();
    let shown = caller.tokens().iter().map(|grant| {
        let record = &grant.record.value;
        let org = record
            .org
            .as_ref()
            .and_then(|slug| snapshot.get::<Orgs>(slug));
        let is_admin = record.kind == TokenKind::Admin;
        CurrentToken {
            token_id: if is_admin {
                record.user.clone()
            } else {
                record.id.clone()
            },
            organization: org.map_or_else(String::new, |org| org.value.name.clone()),
            org_slug: org.map_or_else(String::new, |org| org.key.to_string()),
            apps: apps_of(&snapshot, &grant.caveats),
            restricted_to_machine: from_machine(&grant.caveats),
            source_machine_id: String::new(),
            user: record.user.clone(),
        }
    });
    shown.collect()
}

/// Returns the names of the apps that caveats name, where they name any.
fn apps_of(snapshot: &Snapshot, caveats: &[Caveat]) -> Vec<String> {
    let mut names = Vec::new();
    for caveat in caveats {
        match caveat {
            Caveat::Apps(set) => names.extend(set.keys().map(|number| {
                let name = snapshot.get::<AppNumbers>(number);
                name.map_or_else(|| number.to_string(), |name| name.value.to_string())
            })),
            Caveat::IfPresent { ifs, .. } => names.extend(apps_of(snapshot, ifs)),
            _ => {}
        }
    }
    names.dedup();
    names
}

fn from_machine(caveats: &[Caveat]) -> String {
    let mut ids = caveats.iter().filter_map(|caveat| match caveat {
        Caveat::FromMachine(id) => Some(id.clone()),
        _ => None,
    });
    ids.next().unwrap_or_default()
}

/// Removes all tokens of an organisation that ends.
pub(crate) async fn end_with(core: &Core, slug: &OrgSlug) -> Result<(), StoreError> {
    let snapshot = core.cache.snapshot();
    let all: Vec<_> = of_org(&snapshot, slug).cloned().collect();
    drop(snapshot);
    for record in all {
        // One that is revoked meanwhile is removed with the next sweep.
        core.try_commit(Txn::new().remove::<Tokens>(&record))
            .await?;
    }
    Ok(())
}
