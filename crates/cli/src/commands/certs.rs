//! `hangar certs`.

use std::path::Path;

use anyhow::{Context as _, Result};
use hangar_api::certificate::{
    CertificateDetail, CertificateEntry, CertificateStatus, CertificateSummary, Hostname,
    ImportCertificate,
};
use hangar_api::id::AppName;

use crate::args::{AppArgs, CertsCommand, OneHostname, ShowArgs};
use crate::context::Context;
use crate::error::Exit;
use crate::output;

/// Most bytes of a file that is read: a server takes less.
const MAX_FILE: u64 = 1024 * 1024;

pub(super) async fn run(context: &Context, command: CertsCommand) -> Result<Exit> {
    match command {
        CertsCommand::List(show) => list(context, &show).await,
        CertsCommand::Add(one) => {
            let app = context.app(&one.show.app).await?.name;
            let added = context.client.add_hostname(&app, &one.hostname).await?;
            if one.show.json {
                output::json(&added)?;
                return Ok(Exit::Done);
            }
            output::data(&format!("Hostname {} leads to app {app} now", one.hostname))?;
            output::data(&dns(&added))?;
            problems(&added)
        }
        CertsCommand::Import {
            one,
            fullchain,
            private_key,
        } => import(context, &one, &fullchain, &private_key).await,
        CertsCommand::Check(one) => check(context, &one).await,
        CertsCommand::Setup(one) => {
            let app = context.app(&one.show.app).await?.name;
            let checked = context
                .client
                .check_certificate(&app, &one.hostname)
                .await?;
            if one.show.json {
                output::json(&checked)?;
            } else {
                output::data(&dns(&checked))?;
            }
            Ok(Exit::Done)
        }
        CertsCommand::Remove {
            hostname,
            app,
            custom,
            acme,
            yes,
        } => {
            let part = match (custom, acme) {
                (true, _) => Some("custom"),
                (_, true) => Some("acme"),
                _ => None,
            };
            remove(context, &hostname, &app, part, yes).await
        }
    }
}

async fn list(context: &Context, show: &ShowArgs) -> Result<Exit> {
    let app = context.app(&show.app).await?.name;
    let all = context.client.certificates(&app).await?;
    if show.json {
        output::json(&all)?;
        return Ok(Exit::Done);
    }
    let row = |one: &CertificateSummary| {
        let source = if one.has_custom_certificate {
            "Custom"
        } else {
            "-"
        };
        let status = match (one.has_custom_certificate, one.configured) {
            (true, true) => "Verified",
            (true, false) => "Expired",
            (false, _) => "No certificate",
        };
        [one.hostname.as_str(), source, status]
            .map(str::to_owned)
            .to_vec()
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    output::table(None, &["Hostname", "Source", "Status"], &rows)?;
    Ok(Exit::Done)
}

async fn import(
    context: &Context,
    one: &OneHostname,
    fullchain: &Path,
    private_key: &Path,
) -> Result<Exit> {
    let app = context.app(&one.show.app).await?.name;
    let input = ImportCertificate {
        hostname: Some(one.hostname.to_string()),
        fullchain: Some(text_of(fullchain)?),
        private_key: Some(text_of(private_key)?),
    };
    let imported = context.client.import_certificate(&app, &input).await?;
    if one.show.json {
        output::json(&imported)?;
        return Ok(Exit::Done);
    }
    output::data(&format!(
        "Certificate of {} is imported to app {app} and served",
        one.hostname
    ))?;
    if let Some(entry) = imported.certificates.first() {
        output::data(&format!("Expires: {}", output::rfc3339(entry.expires_at)))?;
    }
    Ok(Exit::Done)
}

fn text_of(path: &Path) -> Result<String> {
    let shown = path.display();
    let size = std::fs::metadata(path).map(|data| data.len());
    if size.with_context(|| format!("read {shown}"))? > MAX_FILE {
        return Err(Exit::Usage.with(format!("{shown} is too long to be PEM of a certificate")));
    }
    std::fs::read_to_string(path).with_context(|| format!("read {shown}"))
}

async fn check(context: &Context, one: &OneHostname) -> Result<Exit> {
    let app = context.app(&one.show.app).await?.name;
    let checked = context
        .client
        .check_certificate(&app, &one.hostname)
        .await?;
    if one.show.json {
        output::json(&checked)?;
        return Ok(Exit::Done);
    }
    let fields = match checked.certificates.first() {
        Some(entry) => of_certificate(&checked, entry),
        None => vec![
            ("Status", "No certificate".to_owned()),
            ("Hostname", checked.hostname.clone()),
        ],
    };
    let addresses = checked.dns_records.clone().unwrap_or_default();
    let addresses = match addresses.resolved_addresses.as_slice() {
        [] => "none".to_owned(),
        some => some.join(", "),
    };
    let fields = [fields, vec![("DNS", addresses)]].concat();
    output::record("Certificate", &fields)?;
    problems(&checked)
}

fn of_certificate(
    checked: &CertificateDetail,
    entry: &CertificateEntry,
) -> Vec<(&'static str, String)> {
    let status = match entry.status {
        CertificateStatus::Active => "Verified",
        _ => "Expired",
    };
    let kinds: Vec<&str> = entry.issued.iter().map(|one| one.kind.as_str()).collect();
    vec![
        ("Status", status.to_owned()),
        ("Hostname", checked.hostname.clone()),
        ("Issuer", entry.issuer.clone()),
        ("Issued", kinds.join(",")),
        ("Added to App", output::rfc3339(entry.created_at)),
        ("Expires", output::rfc3339(entry.expires_at)),
    ]
}

/// Returns which records lead to the app, one of them.
fn dns(detail: &CertificateDetail) -> String {
    let wanted = &detail.dns_requirements;
    let line = |kind: &str, to: &str| format!("  {kind:<5} {} -> {to}", detail.hostname);
    let mut lines = vec!["DNS records that lead to it, one of:".to_owned()];
    lines.extend(wanted.a.iter().map(|to| line("A", to)));
    lines.extend(wanted.aaaa.iter().map(|to| line("AAAA", to)));
    lines.push(line("CNAME", &wanted.cname));
    lines.join("\n")
}

fn problems(detail: &CertificateDetail) -> Result<Exit> {
    for problem in &detail.validation_errors {
        output::data(&format!(
            "\n! {}\n  {}",
            problem.message, problem.remediation
        ))?;
    }
    Ok(Exit::Done)
}

async fn remove(
    context: &Context,
    host: &Hostname,
    app: &AppArgs,
    part: Option<&str>,
    yes: bool,
) -> Result<Exit> {
    let app: AppName = context.app(app).await?.name;
    let question = match part {
        None => format!("Remove {host} and its certificate from app {app}?"),
        Some("custom") => format!("Remove the imported certificate of {host} from app {app}?"),
        Some(_) => format!("Take back the wish for an issued certificate of {host}?"),
    };
    if !yes && !output::confirm(&question)? {
        return Ok(Exit::Failed);
    }
    let Some(part) = part else {
        context.client.remove_hostname(&app, host).await?;
        output::data(&format!("Hostname {host} is removed from app {app}"))?;
        return Ok(Exit::Done);
    };
    let left = context.client.remove_certificate(&app, host, part).await?;
    output::data(&match part {
        "custom" => format!("The imported certificate of {host} is removed from app {app}"),
        _ => format!("No certificate will be issued for {host}"),
    })?;
    if let Some(warning) = left.warning {
        output::say(&warning);
    }
    Ok(Exit::Done)
}
