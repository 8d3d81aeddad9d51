//! What can be asked.

use async_graphql::{Context, Error, ID, Object, Result, SimpleObject};
use hangar_api::region::RegionInfo;

use crate::app::App;
use crate::machine::{Machine, Volume};
use crate::org::{Organization, Principal, User};
use crate::page::{Connection, PageInfo};
use crate::session::{Session, refused};

/// Most apps of a page.
const MAX_PAGE: usize = 500;

/// What can be asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queries;

/// A region.
#[derive(Clone, Debug, SimpleObject)]
pub(crate) struct Region {
    /// Its code.
    code: String,
    /// Its city.
    name: String,
    /// Where it is; null for a region of the operator's own.
    latitude: Option<f64>,
    /// Where it is; null for a region of the operator's own.
    longitude: Option<f64>,
    /// Whether it has a WireGuard gateway: no.
    gateway_available: bool,
    /// Whether it costs more: no.
    requires_paid_plan: bool,
    /// Whether it is on its way out: no.
    deprecated: bool,
}

/// The platform.
#[derive(Clone, Debug, SimpleObject)]
#[graphql(name = "FlyPlatform")]
pub(crate) struct Platform {
    /// The region that Machines go to when nobody says where.
    request_region: Option<String>,
    /// All regions.
    regions: Vec<Region>,
}

/// An image that may be newer.
#[derive(Clone, Debug, SimpleObject)]
pub(crate) struct ImageVersion {
    /// The registry.
    registry: String,
    /// The repository.
    repository: String,
    /// The tag.
    tag: String,
    /// The version.
    version: Option<String>,
    /// The digest.
    digest: String,
}

impl From<&RegionInfo> for Region {
    fn from(info: &RegionInfo) -> Self {
        Self {
            code: info.code.to_string(),
            name: info.name.clone(),
            latitude: None,
            longitude: None,
            gateway_available: info.gateway_available,
            requires_paid_plan: info.requires_paid_plan,
            deprecated: false,
        }
    }
}

/// What can be asked.
#[Object(name = "Queries")]
impl Queries {
    /// Who calls.
    async fn viewer(&self, ctx: &Context<'_>) -> Result<Principal> {
        let session = Session::of(ctx)?;
        let viewer = session.desk.viewer(session.caller);
        Ok(Principal::User(User(viewer)))
    }

    /// The organisations that the caller may see.
    async fn organizations(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Whether the caller is to be its administrator: every caller is.")]
        admin: Option<bool>,
    ) -> Result<Connection<Organization>> {
        let _every_caller_is = admin;
        let session = Session::of(ctx)?;
        let all = session.desk.organizations(session.caller);
        Ok(Connection::whole(all.into_iter().map(Organization)))
    }

    /// An organisation, by slug or id.
    async fn organization(
        &self,
        ctx: &Context<'_>,
        slug: Option<String>,
        id: Option<ID>,
    ) -> Result<Organization> {
        let wanted = slug.or_else(|| id.map(|id| id.0));
        let wanted = wanted.ok_or_else(|| Error::new("name the organization by its slug"))?;
        let session = Session::of(ctx)?;
        let found = session.desk.organization(session.caller, &wanted);
        found.map(Organization).map_err(refused)
    }

    /// The apps that the caller may see, by name.
    async fn apps(
        &self,
        ctx: &Context<'_>,
        #[graphql(name = "type", desc = "`container` is the only type there is.")] kind: Option<
            String,
        >,
        #[graphql(desc = "Most of a page.")] first: Option<i32>,
        #[graphql(desc = "Those behind this name.")] after: Option<String>,
        #[graphql(desc = "Those of one organisation.")] organization_id: Option<ID>,
        #[graphql(desc = "Those of a role: no app of Hangar has one.")] role: Option<String>,
    ) -> Result<Connection<App>> {
        let session = Session::of(ctx)?;
        let none = kind.is_some_and(|kind| kind != "container")
            || role.is_some_and(|role| !role.is_empty());
        if none {
            return Ok(Connection::whole([]));
        }
        let asked = first.and_then(|first| usize::try_from(first).ok());
        let limit = asked.unwrap_or(MAX_PAGE).min(MAX_PAGE);
        let (org, after) = (organization_id.as_deref(), after.filter(|a| !a.is_empty()));
        let page = session.desk.apps(
            session.caller,
            org.map(String::as_str),
            after.as_deref(),
            limit,
        );
        Ok(Connection {
            page_info: PageInfo {
                has_next_page: page.more,
                end_cursor: page.apps.last().map(|app| app.name.to_string()),
            },
            nodes: page.apps.into_iter().map(App).collect(),
        })
    }

    /// An app, by name.
    async fn app(
        &self,
        ctx: &Context<'_>,
        name: Option<String>,
        internal_id: Option<String>,
    ) -> Result<App> {
        let wanted = name.or(internal_id);
        let wanted = wanted.ok_or_else(|| Error::new("name the app by its name"))?;
        app(ctx, &wanted)
    }

    /// Whether an app can be deployed by bluegreen: none of its Machines has a volume.
    async fn can_perform_bluegreen_deployment(
        &self,
        ctx: &Context<'_>,
        name: String,
    ) -> Result<bool> {
        let App(app) = app(ctx, &name)?;
        Ok(Session::of(ctx)?.desk.can_bluegreen(&app.name))
    }

    /// A newer version of an image: Hangar publishes none.
    async fn latest_image_details(
        &self,
        image: String,
        fly_version: Option<String>,
    ) -> Result<ImageVersion> {
        let _of_which_none_is_newer = (image, fly_version);
        Err(Error::new("Unknown repository"))
    }

    /// A Machine, by id.
    async fn machine(&self, ctx: &Context<'_>, machine_id: String) -> Result<Machine> {
        let session = Session::of(ctx)?;
        let found = session.desk.machine(session.caller, &machine_id);
        let (machine, app) = found.map_err(refused)?;
        Ok(Machine {
            machine,
            app: App(app),
        })
    }

    /// A volume, by id.
    async fn volume(&self, ctx: &Context<'_>, id: ID) -> Result<Volume> {
        let session = Session::of(ctx)?;
        let found = session.desk.volume(session.caller, &id);
        let (volume, app) = found.map_err(refused)?;
        let snapshots = session.desk.snapshots(&app.name, &volume.id);
        Ok(Volume {
            snapshots: snapshots.map_err(refused)?,
            volume,
            app: App(app),
        })
    }

    /// The platform.
    async fn platform(&self, ctx: &Context<'_>) -> Result<Platform> {
        let regions = Session::of(ctx)?.desk.regions();
        Ok(Platform {
            request_region: regions.nearest.map(|region| region.code.to_string()),
            regions: regions.all.iter().map(Region::from).collect(),
        })
    }

    /// The region that Machines go to when nobody says where.
    async fn nearest_region(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "One with a WireGuard gateway: there is none, and this is the nearest.")]
        wireguard_gateway: Option<bool>,
    ) -> Result<Region> {
        let _there_is_none = wireguard_gateway;
        let nearest = Session::of(ctx)?.desk.regions().nearest;
        let nearest = nearest.ok_or_else(|| Error::new("there is no region"))?;
        Ok(Region::from(&nearest))
    }
}

/// Returns an app that the caller may see.
pub(crate) fn app(ctx: &Context<'_>, name: &str) -> Result<App> {
    let session = Session::of(ctx)?;
    let found = session.desk.app(session.caller, name);
    found.map(App).map_err(refused)
}
