//! An app and what is its own.

use std::collections::BTreeMap;

use async_graphql::{Context, Enum, ID, Object, Result, SimpleObject};
use hangar_api::app::App as Record;
use hangar_api::ip::{IpAssignment, IpKind};
use hangar_api::machine::Service as ServiceRecord;
use hangar_api::org::{Org, OrgKind};

use crate::machine::Machine;
use crate::org::{AddOn, AddOnType, LimitedAccessToken, Organization, limited_access_tokens};
use crate::page::Connection;
use crate::release::{AppConfig, Release, ReleaseUnprocessed};
use crate::scalar::{BigInt, DateTime, Json, int};
use crate::session::{Session, refused};

/// Releases of a list that does not say how many.
const RELEASES: usize = 25;
/// Most of them.
const MAX_RELEASES: usize = 100;

/// An app.
#[derive(Clone, Debug)]
pub(crate) struct App(pub(crate) Record);

/// What an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(name = "IPAddressType")]
pub(crate) enum IpAddressType {
    /// IPv4.
    #[graphql(name = "v4")]
    V4,
    /// IPv6.
    #[graphql(name = "v6")]
    V6,
    /// IPv6 of the private network.
    #[graphql(name = "private_v6")]
    PrivateV6,
    /// IPv4 that several apps have.
    #[graphql(name = "shared_v4")]
    SharedV4,
}

impl IpAddressType {
    /// Returns its name in the Machines API.
    pub(crate) fn wire(self) -> &'static str {
        match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
            Self::PrivateV6 => "private_v6",
            Self::SharedV4 => "shared_v4",
        }
    }
}

/// An address of an app.
#[derive(Clone, Debug, SimpleObject)]
#[graphql(name = "IPAddress")]
pub(crate) struct IpAddress {
    /// The address again.
    pub(crate) id: ID,
    /// The address.
    pub(crate) address: String,
    /// Its type.
    #[graphql(name = "type")]
    pub(crate) kind: IpAddressType,
    /// Where it is announced.
    pub(crate) region: String,
    /// When it was given.
    pub(crate) created_at: DateTime,
    /// The private network that it is of: none is.
    pub(crate) network: Option<Network>,
    /// The service that it is for: all of them.
    pub(crate) service_name: Option<String>,
}

/// A private network.
#[derive(Clone, Debug, SimpleObject)]
pub(crate) struct Network {
    /// Its name.
    pub(crate) name: String,
    /// Whose it is.
    pub(crate) organization: Organization,
}

/// An address for what is sent: there are none.
#[derive(Clone, Debug, SimpleObject)]
#[graphql(name = "EgressIPAddress")]
pub(crate) struct EgressIpAddress {
    /// Its id.
    id: ID,
    /// The address.
    ip: String,
    /// 4 or 6.
    version: i32,
    /// Where it is.
    region: String,
    /// When it last changed.
    updated_at: DateTime,
}

/// Trouble of a host: what there is, is told of the Machine.
#[derive(Clone, Debug, SimpleObject)]
pub(crate) struct Issue {
    /// Its id.
    id: ID,
    /// The same.
    internal_id: String,
    /// What it is.
    message: Option<String>,
    /// When it began.
    created_at: DateTime,
    /// When it last changed.
    updated_at: DateTime,
}

/// A secret's name.
#[derive(Clone, Debug, SimpleObject)]
#[graphql(name = "Secret")]
pub(crate) struct SecretName {
    /// The name again.
    id: ID,
    /// The name.
    name: String,
    /// A digest of the value.
    digest: String,
    /// When it was first set.
    created_at: DateTime,
}

/// What an app is for: no app of Hangar has a role.
#[derive(Clone, Debug, SimpleObject)]
pub(crate) struct AppRole {
    /// Its name.
    name: String,
}

/// What an image's name means.
#[derive(Clone, Debug, SimpleObject)]
pub(crate) struct Image {
    /// Its digest.
    id: ID,
    /// Its digest.
    digest: String,
    /// The name to deploy.
    #[graphql(name = "ref")]
    name: String,
    /// Bytes of its layers, compressed; 0 before it was pulled.
    compressed_size_full: BigInt,
    /// The same, as far as it fits.
    compressed_size: i32,
    /// Null: clients need it not.
    manifest: Option<Json>,
}

/// The image that an app runs.
#[derive(Clone, Debug, SimpleObject)]
pub(crate) struct ImageDetails {
    /// The registry.
    registry: String,
    /// The repository.
    repository: String,
    /// The tag.
    tag: String,
    /// The digest.
    digest: String,
    /// Null: images have tags.
    version: Option<String>,
}

/// A service of an app.
#[derive(Clone, Debug, SimpleObject)]
pub(crate) struct Service {
    /// Empty: services have no names.
    description: String,
    /// `TCP` or `UDP`.
    protocol: String,
    /// The port in the Machine.
    internal_port: i32,
    /// The ports outside.
    ports: Vec<ServicePort>,
}

/// A port of a service.
#[derive(Clone, Debug, SimpleObject)]
pub(crate) struct ServicePort {
    /// The port.
    port: i32,
    /// What is done to its connections.
    handlers: Vec<String>,
}

// === impl IpAddress ===

impl IpAddress {
    /// Returns an address as clients read it.
    pub(crate) fn of(given: IpAssignment) -> Self {
        Self {
            id: given.ip.to_string().into(),
            address: given.ip.to_string(),
            kind: match given.kind {
                IpKind::V4 => IpAddressType::V4,
                IpKind::V6 => IpAddressType::V6,
                IpKind::SharedV4 => IpAddressType::SharedV4,
            },
            region: given.region.to_string(),
            created_at: DateTime(given.created_at),
            network: None,
            service_name: Some(given.service_name).filter(|name| !name.is_empty()),
        }
    }
}

// === impl App ===

impl App {
    fn owner(&self, ctx: &Context<'_>) -> Result<Organization> {
        let session = Session::of(ctx)?;
        let org = &self.0.organization;
        let found = session.desk.organization(session.caller, org.slug.as_str());
        match found {
            Ok(org) => Ok(Organization(org)),
            // Who may read an app, and not its organisation, sees whose it is and no more.
            Err(_) => Ok(Organization(Org {
                id: String::new(),
                internal_numeric_id: org.internal_numeric_id,
                slug: org.slug.clone(),
                name: org.name.clone(),
                kind: match org.slug.is_personal() {
                    true => OrgKind::Personal,
                    false => OrgKind::Shared,
                },
                created_at: self.0.created_at,
                app_count: 0,
            })),
        }
    }
}

/// An app.
#[Object(name = "App")]
impl App {
    /// Its name: what clients pass where an app's id is asked for.
    async fn id(&self) -> ID {
        self.0.name.as_str().into()
    }
    /// Its number, as macaroons name it.
    async fn internal_numeric_id(&self) -> i32 {
        int(self.0.internal_numeric_id)
    }
    /// Its name.
    async fn name(&self) -> &str {
        self.0.name.as_str()
    }
    /// The name that leads to it, with a port where that is not the usual.
    async fn hostname(&self) -> &str {
        &self.0.hostname
    }
    /// Whether it was ever deployed.
    async fn deployed(&self) -> bool {
        self.0.status != "pending"
    }
    /// `pending`, `deployed` or `suspended`.
    async fn status(&self) -> &str {
        &self.0.status
    }
    /// The number of its current release.
    async fn version(&self, ctx: &Context<'_>) -> Result<i32> {
        let release = Session::of(ctx)?.desk.current_release(&self.0.name);
        Ok(release.map_or(0, |release| int(release.version)))
    }
    /// The URL to open.
    async fn app_url(&self) -> Option<&str> {
        self.0.app_url.as_deref()
    }
    /// Always `machines`.
    async fn platform_version(&self) -> &'static str {
        "machines"
    }
    /// The private network, "" for the default one.
    async fn network(&self) -> &str {
        match self.0.network.as_str() {
            "default" => "",
            other => other,
        }
    }
    /// What a CNAME of an own name should say.
    async fn cname_target(&self) -> &str {
        let host = self.0.hostname.as_str();
        host.split(':').next().unwrap_or(host)
    }
    /// When it was created.
    async fn created_at(&self) -> DateTime {
        DateTime(self.0.created_at)
    }
    /// Whose it is.
    async fn organization(&self, ctx: &Context<'_>) -> Result<Organization> {
        self.owner(ctx)
    }
    /// What it is for: null.
    async fn role(&self) -> Option<AppRole> {
        None
    }
    /// Its secrets, without values.
    async fn secrets(&self, ctx: &Context<'_>) -> Result<Vec<SecretName>> {
        let secrets = Session::of(ctx)?.desk.secrets(&self.0.name);
        let shown = secrets.into_iter().map(|secret| SecretName {
            id: secret.name.as_str().into(),
            name: secret.name,
            digest: secret.digest,
            created_at: DateTime(secret.created_at),
        });
        Ok(shown.collect())
    }
    /// Its current release.
    async fn current_release(&self, ctx: &Context<'_>) -> Result<Option<Release>> {
        let release = Session::of(ctx)?.desk.current_release(&self.0.name);
        Ok(release.map(Release))
    }
    /// Its current release, with the configuration as it was sent.
    async fn current_release_unprocessed(
        &self,
        ctx: &Context<'_>,
    ) -> Result<Option<ReleaseUnprocessed>> {
        let release = Session::of(ctx)?.desk.current_release(&self.0.name);
        Ok(release.map(ReleaseUnprocessed))
    }
    /// Its releases, the newest first.
    async fn releases(&self, ctx: &Context<'_>, first: Option<i32>) -> Result<Connection<Release>> {
        let releases = releases(ctx, &self.0, first)?;
        Ok(Connection::whole(releases.into_iter().map(Release)))
    }
    /// Its releases, the newest first, with their configurations as they were sent.
    async fn releases_unprocessed(
        &self,
        ctx: &Context<'_>,
        first: Option<i32>,
    ) -> Result<Connection<ReleaseUnprocessed>> {
        let releases = releases(ctx, &self.0, first)?;
        Ok(Connection::whole(
            releases.into_iter().map(ReleaseUnprocessed),
        ))
    }
    /// The configuration of its current release.
    async fn config(&self, ctx: &Context<'_>) -> Result<AppConfig> {
        let release = Session::of(ctx)?.desk.current_release(&self.0.name);
        let definition = release.map(|release| release.definition);
        let known = definition.filter(|definition| !definition.is_null());
        let definition = known.unwrap_or_else(|| serde_json::json!({}));
        Ok(AppConfig {
            definition: async_graphql::Json(definition),
        })
    }
    /// Its services, of all Machines.
    async fn services(&self, ctx: &Context<'_>) -> Result<Vec<Service>> {
        let machines = Session::of(ctx)?.desk.machines(&self.0.name);
        let services = machines.iter().flat_map(|machine| &machine.config.services);
        let mut all = BTreeMap::new();
        for service in services {
            let shown = shown_service(service);
            all.insert((shown.internal_port, shown.protocol.clone()), shown);
        }
        Ok(all.into_values().collect())
    }
    /// Its Machines.
    async fn machines(&self, ctx: &Context<'_>) -> Result<Connection<Machine>> {
        let machines = Session::of(ctx)?.desk.machines(&self.0.name);
        Ok(Connection::whole(machines.into_iter().map(|machine| {
            Machine {
                machine,
                app: self.clone(),
            }
        })))
    }
    /// The image that it runs.
    async fn image_details(&self, ctx: &Context<'_>) -> Result<Option<ImageDetails>> {
        let release = Session::of(ctx)?.desk.current_release(&self.0.name);
        let image = release.map(|release| release.image_ref);
        Ok(image.map(|image| ImageDetails {
            registry: image.registry,
            repository: image.repository,
            tag: image.tag,
            digest: image.digest,
            version: None,
        }))
    }
    /// What an image's name means; null where there is no such image.
    async fn image(
        &self,
        ctx: &Context<'_>,
        #[graphql(name = "ref")] name: String,
    ) -> Result<Option<Image>> {
        let session = Session::of(ctx)?;
        let found = session.desk.image(session.caller, &name).await;
        Ok(found.map_err(refused)?.map(|found| Image {
            id: found.image.digest.as_str().into(),
            digest: found.image.digest,
            name: found.name,
            compressed_size_full: BigInt(found.size),
            compressed_size: int(found.size),
            manifest: None,
        }))
    }
    /// Its addresses, but for the one that it shares.
    async fn ip_addresses(&self, ctx: &Context<'_>) -> Result<Connection<IpAddress>> {
        let all = Session::of(ctx)?.desk.addresses(&self.0.name);
        let own = all.into_iter().filter(|ip| ip.kind != IpKind::SharedV4);
        Ok(Connection::whole(own.map(IpAddress::of)))
    }
    /// The address that it shares with other apps.
    async fn shared_ip_address(&self, ctx: &Context<'_>) -> Result<Option<String>> {
        let all = Session::of(ctx)?.desk.addresses(&self.0.name);
        let shared = all.into_iter().find(|ip| ip.kind == IpKind::SharedV4);
        Ok(shared.map(|ip| ip.ip.to_string()))
    }
    /// Its addresses for what is sent: there are none.
    async fn egress_ip_addresses(&self) -> Connection<EgressIpAddress> {
        Connection::whole([])
    }
    /// Trouble of its hosts: told of the Machine itself.
    async fn host_issues(&self) -> Connection<Issue> {
        Connection::whole([])
    }
    /// Its tokens.
    async fn limited_access_tokens(
        &self,
        ctx: &Context<'_>,
    ) -> Result<Connection<LimitedAccessToken>> {
        limited_access_tokens(ctx, &self.0.organization.slug, Some(&self.0.name))
    }
    /// Its extensions: there are none.
    async fn add_ons(
        &self,
        #[graphql(name = "type")] kind: Option<AddOnType>,
    ) -> Connection<AddOn> {
        let _there_are_none = kind;
        Connection::whole([])
    }
}

fn releases(
    ctx: &Context<'_>,
    app: &Record,
    first: Option<i32>,
) -> Result<Vec<hangar_api::release::Release>> {
    let asked = first.and_then(|first| usize::try_from(first).ok());
    let limit = asked.unwrap_or(RELEASES).min(MAX_RELEASES);
    Ok(Session::of(ctx)?.desk.releases(&app.name, limit))
}

fn shown_service(service: &ServiceRecord) -> Service {
    Service {
        description: String::new(),
        protocol: service.protocol.to_string().to_ascii_uppercase(),
        internal_port: int(service.internal_port),
        ports: service
            .ports
            .iter()
            .map(|port| ServicePort {
                port: int(*port.range().start()),
                handlers: port.handlers.iter().map(ToString::to_string).collect(),
            })
            .collect(),
    }
}
