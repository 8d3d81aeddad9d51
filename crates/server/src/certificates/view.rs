//! What clients see of a host name. Pure.

use std::net::IpAddr;

use hangar_api::Timestamp;
use hangar_api::certificate::{
    CertificateDetail, CertificateEntry, CertificateStatus, CertificateSummary,
    CertificateValidation, DnsRequirements, Hostname, IssuedCertificate, ValidationError,
};
use hangar_api::id::AppName;
use hangar_store::tables::{CertificateRecord, CustomCertificate};

use super::names::Found;

/// Most addresses that a message names.
const MAX_TOLD: usize = 4;

fn is_current(custom: &CustomCertificate, now: Timestamp) -> bool {
    custom.expires_at >= now
}

fn status(record: &CertificateRecord, now: Timestamp) -> CertificateStatus {
    match &record.custom {
        Some(custom) if is_current(custom, now) => CertificateStatus::Active,
        _ => CertificateStatus::PendingValidation,
    }
}

/// Returns a row of a list.
pub(super) fn summary(
    host: &Hostname,
    record: &CertificateRecord,
    now: Timestamp,
) -> CertificateSummary {
    let status = status(record, now);
    CertificateSummary {
        hostname: host.to_string(),
        status,
        dns_provider: String::new(),
        configured: status == CertificateStatus::Active,
        acme_requested: record.acme_requested,
        acme_dns_configured: false,
        acme_alpn_configured: false,
        acme_http_configured: false,
        ownership_txt_configured: false,
        has_custom_certificate: record.custom.is_some(),
        has_fly_certificate: false,
        created_at: record.created_at,
        updated_at: record.updated_at,
    }
}

/// Returns all that is kept of a host name. `edge` is where the proxy listens, `own` the app's own
/// host name.
pub(super) fn detail(
    host: &Hostname,
    record: &CertificateRecord,
    edge: IpAddr,
    own: String,
    now: Timestamp,
) -> CertificateDetail {
    let status = status(record, now);
    let certificates: Vec<_> = record.custom.iter().map(|c| entry(c, status)).collect();
    CertificateDetail {
        hostname: host.to_string(),
        configured: status == CertificateStatus::Active,
        acme_requested: record.acme_requested,
        status,
        dns_provider: String::new(),
        certificates,
        validation: CertificateValidation::default(),
        dns_requirements: requirements(edge, own),
        validation_errors: problems(record, now),
        dns_records: None,
        warning: None,
    }
}

fn entry(custom: &CustomCertificate, status: CertificateStatus) -> CertificateEntry {
    CertificateEntry {
        source: "custom".to_owned(),
        status,
        created_at: custom.imported_at,
        expires_at: custom.expires_at,
        issuer: custom.issuer.clone(),
        issued: vec![IssuedCertificate {
            kind: custom.kind.clone(),
            expires_at: custom.expires_at,
            certificate_authority: custom.issuer.clone(),
        }],
    }
}

/// An edge on loopback, or on every address, has none that can be told to the world.
fn requirements(edge: IpAddr, own: String) -> DnsRequirements {
    let told = Some(edge).filter(|ip| !ip.is_loopback() && !ip.is_unspecified());
    let of = |wanted: fn(&IpAddr) -> bool| {
        told.iter()
            .filter(|ip| wanted(ip))
            .map(ToString::to_string)
            .collect()
    };
    DnsRequirements {
        a: of(IpAddr::is_ipv4),
        aaaa: of(IpAddr::is_ipv6),
        cname: own,
    }
}

fn problems(record: &CertificateRecord, now: Timestamp) -> Vec<ValidationError> {
    let problem = |code: &str, message: String, remediation: &str| ValidationError {
        code: code.to_owned(),
        message,
        remediation: remediation.to_owned(),
        timestamp: now,
    };
    match &record.custom {
        Some(custom) if is_current(custom, now) => Vec::new(),
        Some(custom) => vec![problem(
            "certificate_expired",
            format!(
                "The certificate expired at {} and is still served.",
                custom.expires_at
            ),
            "Import a renewed certificate for this hostname.",
        )],
        None => vec![problem(
            "acme_not_available",
            "Hangar does not issue certificates yet (ACME comes later). Requests for this hostname \
             reach the app; over TLS they get a self-signed certificate."
                .to_owned(),
            "Import a certificate for this hostname: certs import HOSTNAME --fullchain FILE \
             --private-key FILE.",
        )],
    }
}

/// Returns a detail with what DNS says.
pub(super) fn checked(
    mut detail: CertificateDetail,
    found: Found,
    now: Timestamp,
) -> CertificateDetail {
    detail.validation.dns_configured = !found.here.is_empty();
    let problem = |code: &str, message: String, remediation: &str| ValidationError {
        code: code.to_owned(),
        message,
        remediation: remediation.to_owned(),
        timestamp: now,
    };
    let host = &detail.hostname;
    let addresses = &found.records.resolved_addresses;
    if let Some(why) = found.failure {
        detail.validation_errors.push(problem(
            "dns_lookup_failed",
            format!("DNS for {host} could not be looked up: {why}"),
            "Check the resolver of the machine that Hangar runs on.",
        ));
    } else if addresses.is_empty() {
        detail.validation_errors.push(problem(
            "dns_missing",
            format!("DNS has no address for {host}."),
            "Add an A, AAAA or CNAME record that leads to this machine.",
        ));
    } else if found.here.is_empty() {
        let told = addresses[..addresses.len().min(MAX_TOLD)].join(", ");
        detail.validation_errors.push(problem(
            "dns_elsewhere",
            format!("DNS leads {host} to {told}, which is no address of this machine."),
            "Point it here, unless a load balancer or NAT passes requests on from there.",
        ));
    }
    detail.dns_records = Some(found.records);
    detail
}

/// Returns what follows from the removal of a certificate.
pub(super) fn without(host: &Hostname, app: &AppName) -> String {
    format!(
        "{host} still leads to {app}, and over TLS it is served with a self-signed certificate; \
         delete the hostname to end that"
    )
}

#[cfg(test)]
mod tests {
    use hangar_api::certificate::DnsRecords;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn record(expires_at: Option<&str>) -> CertificateRecord {
        CertificateRecord {
            acme_requested: expires_at.is_none(),
            custom: expires_at.map(|expires_at| CustomCertificate {
                fullchain: String::new(),
                key_id: "1".to_owned(),
                nonce: String::new(),
                sealed: "SEALED".to_owned(),
                issuer: "CA".to_owned(),
                kind: "rsa".to_owned(),
                expires_at: at(expires_at),
                imported_at: at("2026-01-01T00:00:00Z"),
            }),
            created_at: at("2026-01-01T00:00:00Z"),
            updated_at: at("2026-01-01T00:00:00Z"),
        }
    }

    fn seen(record: &CertificateRecord, edge: &str) -> CertificateDetail {
        let host = Hostname::new("example.com").unwrap();
        let edge = edge.parse().unwrap();
        detail(
            &host,
            record,
            edge,
            "web.localhost".to_owned(),
            at("2026-06-01T00:00:00Z"),
        )
    }

    #[test]
    fn what_is_served_and_what_is_missing_is_said() {
        let good = seen(&record(Some("2027-01-01T00:00:00Z")), "127.0.0.1");
        assert_eq!(
            (good.status, good.configured),
            (CertificateStatus::Active, true)
        );
        assert!(good.validation_errors.is_empty());
        assert!(!serde_json::to_string(&good).unwrap().contains("SEALED"));
        let old = seen(&record(Some("2026-05-01T00:00:00Z")), "127.0.0.1");
        assert_eq!(
            (old.status, old.configured),
            (CertificateStatus::PendingValidation, false)
        );
        assert_eq!(old.validation_errors[0].code, "certificate_expired");
        let bare = seen(&record(None), "127.0.0.1");
        assert_eq!((bare.configured, bare.acme_requested), (false, true));
        assert_eq!(bare.validation_errors[0].code, "acme_not_available");
    }

    #[test]
    fn only_an_address_that_the_world_could_use_is_asked_for() {
        let wanted = |edge| seen(&record(None), edge).dns_requirements;
        for nowhere in ["127.0.0.1", "0.0.0.0", "::", "::1"] {
            assert_eq!(
                (wanted(nowhere).a.len(), wanted(nowhere).aaaa.len()),
                (0, 0)
            );
        }
        assert_eq!(wanted("192.0.2.1").a, ["192.0.2.1"]);
        assert_eq!(wanted("2001:db8::1").aaaa, ["2001:db8::1"]);
        assert_eq!(wanted("::").cname, "web.localhost");
    }

    #[test]
    fn a_check_says_where_dns_leads() {
        let look = |addresses: &[&str], here: bool| {
            let resolved: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            let found = Found {
                here: if here { resolved.clone() } else { Vec::new() },
                records: DnsRecords {
                    resolved_addresses: resolved,
                    ..DnsRecords::default()
                },
                failure: None,
            };
            let detail = seen(&record(Some("2027-01-01T00:00:00Z")), "127.0.0.1");
            checked(detail, found, at("2026-06-01T00:00:00Z"))
        };
        assert_eq!(look(&[], false).validation_errors[0].code, "dns_missing");
        let elsewhere = look(&["192.0.2.1"], false);
        assert_eq!(elsewhere.validation_errors[0].code, "dns_elsewhere");
        assert!(elsewhere.validation_errors[0].message.contains("192.0.2.1"));
        let here = look(&["192.0.2.1"], true);
        assert!(here.validation.dns_configured && here.validation_errors.is_empty());
    }
}
