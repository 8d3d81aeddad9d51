//! The desk: what other front ends than the Machines API ask of the server, free of HTTP.
//!
//! The GraphQL schema stands in front of it. Every answer is for a [`Caller`]: what that one may
//! not see is not there, and what it may not do is refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use hangar_api::app::App;
use hangar_api::duration::GoDuration;
use hangar_api::error::{ErrorKind, Failure};
use hangar_api::id::{AppName, MachineId, VolumeId};
use hangar_api::image::ImageRef;
use hangar_api::ip::{AssignIp, IpAssignment};
use hangar_api::machine::Machine;
use hangar_api::org::{CreateOrg, Org};
use hangar_api::region::RegionInfo;
use hangar_api::release::Release;
use hangar_api::rights::Action;
use hangar_api::secret::Secret;
use hangar_api::token::{CreateToken, TokenInfo, TokenKind};
use hangar_api::volume::{Snapshot, Volume};
use hangar_store::tables::{Apps, MachineHomes, Releases, Volumes};

use crate::auth::caller;
use crate::auth::tokens::{self, Of};
use crate::core::Core;
use crate::deployments::newest_release;
use crate::error::Problem;
use crate::unit::Unit;
use crate::volumes::snapshots;
use crate::{apps, auth, images, ips, orgs, secrets, volumes};

pub use crate::auth::Caller;

/// A handle on the server's functions. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Desk {
    core: Arc<Core>,
}

/// A token as a client of Fly asks for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewToken {
    /// What it is called in lists.
    pub name: String,
    /// The slug of the organisation that it is of, or whose app it is of.
    pub org: String,
    /// `deploy` for an app, `deploy_organization` for an organisation.
    pub profile: String,
    /// The app, for `deploy`.
    pub app: Option<String>,
    /// How long it is good, as Go writes it; 20 years where it is empty.
    pub expiry: String,
}

/// Who calls, as clients show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Viewer {
    /// A stable id.
    pub id: String,
    /// What stands where Fly has an address.
    pub email: String,
}

/// What an image's name means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFound {
    /// The image.
    pub image: ImageRef,
    /// The name that leads to it, without a digest.
    pub name: String,
    /// Bytes of its layers, compressed; 0 before it was pulled.
    pub size: u64,
}

/// A page of apps, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppPage {
    /// The apps.
    pub apps: Vec<App>,
    /// Whether there are more behind them.
    pub more: bool,
}

/// The regions that there are.
#[derive(Clone, Debug, PartialEq)]
pub struct Regions {
    /// By code.
    pub all: Vec<RegionInfo>,
    /// Where Machines go when nobody says where.
    pub nearest: Option<RegionInfo>,
}

// === impl Desk ===

impl Desk {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// Returns who presents this `Authorization` header; `None` where no token in it is known.
    #[must_use]
    pub fn caller(&self, authorization: &str) -> Option<Caller> {
        auth::caller(&self.core, authorization)
    }

    /// Returns how the caller is shown.
    #[must_use]
    pub fn viewer(&self, caller: &Caller) -> Viewer {
        viewer(&self.core, caller.user())
    }

    /// Returns how a user is shown who did something.
    #[must_use]
    pub fn user(&self, user: &str) -> Viewer {
        viewer(&self.core, user)
    }

    /// Returns the organisations that the caller may see.
    #[must_use]
    pub fn organizations(&self, caller: &Caller) -> Vec<Org> {
        orgs::list(&self.core, caller)
    }

    /// Returns an organisation by its slug, or by its id, which is the same.
    pub fn organization(&self, caller: &Caller, slug: &str) -> Result<Org, Failure> {
        let record = orgs::permitted(&self.core, caller, slug, Action::READ)?;
        Ok(orgs::view(&self.core.cache.snapshot(), &record))
    }

    /// Makes an organisation.
    pub async fn create_organization(&self, caller: &Caller, name: &str) -> Result<Org, Failure> {
        let input = CreateOrg {
            name: Some(name.to_owned()),
            slug: None,
        };
        orgs::create(&self.core, caller, &input)
            .await
            .map_err(Failure::from)
    }

    /// Removes an organisation that has no apps.
    pub async fn delete_organization(&self, caller: &Caller, slug: &str) -> Result<(), Failure> {
        let record = orgs::permitted(&self.core, caller, slug, Action::DELETE)?;
        orgs::destroy(&self.core, caller, &record.key)
            .await
            .map_err(Failure::from)
    }

    /// Makes a token and returns its text.
    pub async fn create_token(&self, caller: &Caller, new: NewToken) -> Result<String, Failure> {
        let (of, kind) = match (new.profile.as_str(), new.app) {
            ("deploy", Some(app)) => (Of::App(app_name(&app)?), TokenKind::Deploy),
            ("deploy_organization", _) => {
                let org = orgs::permitted(&self.core, caller, &new.org, Action::READ)?;
                (Of::Org(org.key.clone()), TokenKind::Org)
            }
            (profile, _) => {
                let text = format!(
                    "a token cannot be made of the profile {profile:?}: there are deploy, with an \
                     app, and deploy_organization"
                );
                return Err(Failure::new(ErrorKind::Unsupported, text));
            }
        };
        let expiry = Some(new.expiry).filter(|text| !text.is_empty());
        let expiry = expiry.map(|text| text.parse::<GoDuration>()).transpose();
        let input = CreateToken {
            kind: Some(kind),
            name: Some(new.name),
            expiry: expiry.map_err(|error| Problem::Invalid(format!("expiry: {error}")))?,
            ..CreateToken::default()
        };
        let made = tokens::create(&self.core, caller, &of, input).await?;
        Ok(made.token)
    }

    /// Returns the tokens of an organisation with those of its apps, or of one app alone.
    pub fn tokens(
        &self,
        caller: &Caller,
        org: &str,
        app: Option<&AppName>,
    ) -> Result<Vec<TokenInfo>, Failure> {
        let org = orgs::permitted(&self.core, caller, org, Action::READ)?;
        let of = match app {
            Some(app) => Of::App(app.clone()),
            None => Of::Org(org.key.clone()),
        };
        Ok(tokens::list(&self.core, caller, &of)?)
    }

    /// Revokes a token, by its id.
    pub async fn revoke_token(&self, caller: &Caller, id: &str) -> Result<(), Failure> {
        tokens::revoke(&self.core, caller, id).await?;
        Ok(())
    }

    /// Returns a page of the apps that the caller may see, behind the one named `after`.
    #[must_use]
    pub fn apps(
        &self,
        caller: &Caller,
        org: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> AppPage {
        let snapshot = self.core.cache.snapshot();
        let mut shown = snapshot
            .all::<Apps>()
            .filter(|app| !app.value.deleting)
            .filter(|app| after.is_none_or(|after| app.key.as_str() > after))
            .filter(|app| org.is_none_or(|org| app.value.org.as_str() == org))
            .filter(|app| caller.may(&caller::app(&snapshot, &app.value, Action::READ)))
            .map(|app| apps::view(&self.core, &snapshot, app));
        let apps: Vec<App> = shown.by_ref().take(limit).collect();
        AppPage {
            apps,
            more: shown.next().is_some(),
        }
    }

    /// Returns an app. One that the caller may not read is not there. What else is asked of an app
    /// by its name alone, is asked about one that was returned here.
    pub fn app(&self, caller: &Caller, name: &str) -> Result<App, Failure> {
        let name = app_name(name)?;
        let record = self.core.app(&name)?;
        let snapshot = self.core.cache.snapshot();
        if !caller.may(&caller::app(&snapshot, &record.value, Action::READ)) {
            return Err(Problem::AppNotFound(name.to_string()).into());
        }
        Ok(apps::view(&self.core, &snapshot, &record))
    }

    /// Returns an app's releases, the newest first.
    #[must_use]
    pub fn releases(&self, app: &AppName, limit: usize) -> Vec<Release> {
        releases(&self.core, app, limit)
    }

    /// Returns the release that an app's Machines are of: the newest that was carried out, else
    /// the newest.
    #[must_use]
    pub fn current_release(&self, app: &AppName) -> Option<Release> {
        newest_release(&self.core, app)
    }

    /// Returns an app's Machines that are not destroyed.
    #[must_use]
    pub fn machines(&self, app: &AppName) -> Vec<Machine> {
        let units = Unit::all(&self.core.cache.snapshot(), app);
        let here = units.iter().filter(|unit| unit.state().is_active());
        here.map(Unit::view).collect()
    }

    /// Returns the addresses under which an app is reached.
    #[must_use]
    pub fn addresses(&self, app: &AppName) -> Vec<IpAssignment> {
        ips::list(&self.core, &self.core.cache.snapshot(), app)
    }

    /// Gives an app an address of this kind: `v4`, `v6` or `shared_v4`.
    pub async fn assign_address(
        &self,
        caller: &Caller,
        app: &str,
        input: AssignIp,
    ) -> Result<IpAssignment, Failure> {
        let app = self.writable(caller, app)?;
        Ok(ips::assign(&self.core, &app, input).await?)
    }

    /// Takes an address of an app back.
    pub async fn release_address(
        &self,
        caller: &Caller,
        app: &str,
        ip: &str,
    ) -> Result<(), Failure> {
        let app = self.writable(caller, app)?;
        let ip = ip
            .parse()
            .map_err(|_| Problem::Invalid(format!("{ip:?} is no IP address")))?;
        Ok(ips::release(&self.core, &app, ip).await?)
    }

    /// Returns the name of an app that the caller may change.
    fn writable(&self, caller: &Caller, name: &str) -> Result<AppName, Failure> {
        let app = self.app(caller, name)?;
        let record = self.core.app(&app.name)?;
        let access = caller::app(&self.core.cache.snapshot(), &record.value, Action::WRITE);
        caller.require(&access, &format!("app {name}"))?;
        Ok(app.name)
    }

    /// Returns an app's secrets, without their values.
    #[must_use]
    pub fn secrets(&self, app: &AppName) -> Vec<Secret> {
        let version = self
            .core
            .app(app)
            .map_or(0, |app| app.value.secrets_version);
        secrets::list(&self.core.cache.snapshot(), app, version)
    }

    /// Sets and, by `None`, removes secrets of an app.
    pub async fn set_secrets(
        &self,
        caller: &Caller,
        app: &str,
        changes: &BTreeMap<String, Option<String>>,
    ) -> Result<(), Failure> {
        let app = self.writable(caller, app)?;
        secrets::update(&self.core, &app, changes).await?;
        Ok(())
    }

    /// Returns a Machine and its app.
    pub fn machine(&self, caller: &Caller, id: &str) -> Result<(Machine, App), Failure> {
        let missing = || {
            Failure::new(
                ErrorKind::NotFound,
                format!("Could not find Machine {id:?}"),
            )
        };
        let id = MachineId::new(id).map_err(|_| missing())?;
        let home = self
            .core
            .cache
            .get::<MachineHomes>(&id)
            .ok_or_else(missing)?;
        let app = self.app(caller, home.value.app.as_str())?;
        let unit = Unit::find(&self.core, &app.name, &id)?;
        Ok((unit.view(), app))
    }

    /// Returns a volume and its app.
    pub fn volume(&self, caller: &Caller, id: &str) -> Result<(Volume, App), Failure> {
        let missing = || Failure::new(ErrorKind::NotFound, format!("Could not find Volume {id:?}"));
        let id = VolumeId::new(id).map_err(|_| missing())?;
        let snapshot = self.core.cache.snapshot();
        let mut all = snapshot.all::<Volumes>();
        let record = all.find(|record| record.key.1 == id).ok_or_else(missing)?;
        let app = self.app(caller, record.key.0.as_str())?;
        Ok((volumes::view(&record.value, None), app))
    }

    /// Returns the snapshots of a volume of an app.
    pub fn snapshots(&self, app: &AppName, volume: &VolumeId) -> Result<Vec<Snapshot>, Failure> {
        snapshots::list(&self.core, app, volume).map_err(Failure::from)
    }

    /// Returns what an image's name means; `None` where there is no such image.
    pub async fn image(&self, caller: &Caller, name: &str) -> Result<Option<ImageFound>, Failure> {
        images::require(&self.core, caller, [name])?;
        let image = match images::resolve_as(&self.core, caller, name.to_owned()).await {
            Ok(image) => image,
            Err(failure) if failure.kind == ErrorKind::NotFound => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let ready = self.core.images.list().await?;
        let same = ready.iter().find(|ready| ready.digest == image.digest);
        Ok(Some(ImageFound {
            size: same.map_or(0, |ready| ready.size),
            name: name.split('@').next().unwrap_or(name).to_owned(),
            image,
        }))
    }

    /// Returns whether an app can be deployed by bluegreen: none of its Machines has a volume.
    #[must_use]
    pub fn can_bluegreen(&self, app: &AppName) -> bool {
        let machines = self.machines(app);
        machines.iter().all(|m| m.config.mounts.is_empty())
    }

    /// Returns the regions that there are.
    #[must_use]
    pub fn regions(&self) -> Regions {
        let mut by_code = BTreeMap::new();
        for slot in &self.core.slots {
            by_code.insert(slot.region.clone(), RegionInfo::of(slot.region.clone()));
        }
        Regions {
            nearest: self
                .core
                .slots
                .first()
                .map(|slot| RegionInfo::of(slot.region.clone())),
            all: by_code.into_values().collect(),
        }
    }
}

fn viewer(core: &Core, user: &str) -> Viewer {
    // A token has a name and no mailbox; clients print what stands here.
    let email = match user.contains('@') {
        true => user.to_owned(),
        false => format!("{user}@{}", core.domain),
    };
    Viewer {
        id: user.to_owned(),
        email,
    }
}

fn app_name(text: &str) -> Result<AppName, Problem> {
    // No app can have such a name, so there is none.
    AppName::new(text).map_err(|error| Problem::AppNotFound(error.value))
}

/// Returns an app's releases, the newest first.
pub(crate) fn releases(core: &Core, app: &AppName, limit: usize) -> Vec<Release> {
    let snapshot = core.cache.snapshot();
    let all: Vec<_> = snapshot.under::<Releases, _>(app).collect();
    let newest = all.iter().rev().take(limit);
    newest.map(|record| record.value.clone()).collect()
}

/// Returns the name that leads to an image again, with its digest.
#[must_use]
pub fn image_text(image: &ImageRef) -> String {
    let mut text = image.repository.clone();
    if !image.registry.is_empty() {
        text = format!("{}/{text}", image.registry);
    }
    if !image.tag.is_empty() {
        text = format!("{text}:{}", image.tag);
    }
    if !image.digest.is_empty() {
        text = format!("{text}@{}", image.digest);
    }
    text
}

// === impl Problem ===

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::new(problem.kind(), problem.text())
    }
}
