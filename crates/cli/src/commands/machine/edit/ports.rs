//! The grammar of `--port`: `port[:machinePort][/protocol[:handler...]]`
//! (process-groups-and-deploy.md 6.3).

use hangar_api::machine::Service;
use hangar_api::machine::service::Port;

/// One `--port`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Spec {
    external: External,
    internal: u16,
    protocol: String,
    handlers: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum External {
    One(u16),
    Range(u16, u16),
}

/// Returns the services with the ports of `flags` added, changed or removed. Those with the same
/// protocol and port inside become one service.
pub(super) fn apply(mut services: Vec<Service>, flags: &[String]) -> Result<Vec<Service>, String> {
    for flag in flags {
        let spec = parse(flag).map_err(|why| format!("--port {flag:?}: {why}"))?;
        let same = |s: &Service| s.internal_port == spec.internal && s.protocol == spec.protocol;
        let at = services.iter().position(same).unwrap_or_else(|| {
            services.push(Service {
                internal_port: spec.internal,
                protocol: spec.protocol.clone(),
                ..Service::default()
            });
            services.len() - 1
        });
        let Some(service) = services.get_mut(at) else {
            continue;
        };
        if spec.handlers == ["-"] {
            service.ports.clear();
        } else {
            put(&mut service.ports, &spec);
        }
    }
    Ok(services)
}

/// Changes the handlers of a port that is there, or adds it.
fn put(ports: &mut Vec<Port>, spec: &Spec) {
    let (port, start, end) = match spec.external {
        External::One(port) => (Some(port), None, None),
        External::Range(start, end) => (None, Some(start), Some(end)),
    };
    let same = |p: &&mut Port| match spec.external {
        External::One(_) => p.port == port,
        External::Range(..) => p.port.is_none() && p.start_port == start,
    };
    if let Some(there) = ports.iter_mut().find(same) {
        there.handlers.clone_from(&spec.handlers);
        there.end_port = end;
        return;
    }
    ports.push(Port {
        port,
        start_port: start,
        end_port: end,
        handlers: spec.handlers.clone(),
        ..Port::default()
    });
}

fn parse(text: &str) -> Result<Spec, String> {
    let mut halves = text.split('/');
    let (ports, rest) = (halves.next().unwrap_or_default(), halves.next());
    if halves.next().is_some() {
        return Err("port must be at most two elements (ports/protocol:handler)".to_owned());
    }
    let mut words = rest.unwrap_or("tcp").split(':').map(str::to_owned);
    let protocol = words.next().unwrap_or_default();
    if !matches!(protocol.as_str(), "tcp" | "udp") {
        return Err(format!("protocol {protocol:?} is not known: use tcp"));
    }
    let handlers: Vec<String> = words.collect();
    if handlers.iter().any(String::is_empty) {
        return Err("a handler is missing after the colon".to_owned());
    }
    let (external, internal) = parse_ports(ports)?;
    Ok(Spec {
        external,
        internal,
        protocol,
        handlers,
    })
}

fn parse_ports(text: &str) -> Result<(External, u16), String> {
    let mut parts = text.split(':');
    let (external, internal) = (parts.next().unwrap_or_default(), parts.next());
    if parts.next().is_some() {
        return Err("port definition must be at most 2 elements (external:internal)".to_owned());
    }
    let internal = internal
        .map(|text| number(text, "machine (internal) port"))
        .transpose()?;
    let mut ends = external.split('-');
    let (start, end) = (ends.next().unwrap_or_default(), ends.next());
    if ends.next().is_some() {
        return Err(
            "external port must be at most 2 elements (port, or range start-end)".to_owned(),
        );
    }
    let Some(end) = end else {
        let port = number(start, "port")?;
        return Ok((External::One(port), internal.unwrap_or(port)));
    };
    let start = number(start, "start port for port range")?;
    let end = number(end, "end port for port range")?;
    if end < start {
        return Err(format!("the range ends at {end}, before it begins"));
    }
    Ok((External::Range(start, end), internal.unwrap_or(start)))
}

fn number(text: &str, what: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("invalid {what} {text:?}: use 1 to 65535")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn flags(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    fn one(text: &str) -> Service {
        let mut services = apply(Vec::new(), &flags(&[text])).unwrap();
        assert_eq!(services.len(), 1);
        services.remove(0)
    }

    #[test]
    fn each_form_of_the_grammar_is_read() {
        let plain = one("80");
        assert_eq!((plain.internal_port, plain.protocol.as_str()), (80, "tcp"));
        assert_eq!(plain.ports[0].port, Some(80));
        assert!(plain.ports[0].handlers.is_empty());
        let full = one("443:8080/tcp:tls:http");
        assert_eq!(full.internal_port, 8080);
        assert_eq!(full.ports[0].port, Some(443));
        assert_eq!(full.ports[0].handlers, ["tls", "http"]);
        let range = one("5000-5010:5000/tcp");
        assert_eq!(range.ports[0].range(), 5000..=5010);
        assert_eq!(one("53/udp").protocol, "udp");
    }

    #[test]
    fn the_same_port_inside_is_one_service_and_a_dash_takes_its_ports_away() {
        let list = flags(&["80:8080/tcp:http", "443:8080/tcp:tls:http", "22:22"]);
        let services = apply(Vec::new(), &list).unwrap();
        assert_eq!(services.len(), 2);
        assert_eq!(services[0].ports.len(), 2);
        let changed = apply(services.clone(), &flags(&["80:8080/tcp:tls"])).unwrap();
        assert_eq!(changed[0].ports.len(), 2);
        assert_eq!(changed[0].ports[0].handlers, ["tls"]);
        let gone = apply(services, &flags(&["8080/tcp:-"])).unwrap();
        assert!(gone[0].ports.is_empty() && !gone[1].ports.is_empty());
    }

    #[test]
    fn what_is_no_port_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "invalid port"),
            ("0", "1 to 65535"),
            ("65536", "1 to 65535"),
            ("a", "invalid port"),
            ("80:x", "machine (internal) port"),
            ("80:1:2", "at most 2 elements"),
            ("80/tcp/x", "at most two elements"),
            ("80/sctp", "protocol"),
            ("80/tcp:", "handler is missing"),
            ("90-80:1", "before it begins"),
            ("1-2-3:1", "range start-end"),
        ] {
            let error = apply(Vec::new(), &flags(&[text])).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[0-9a-z:/,-]{0,24}") {
            let _read = apply(Vec::new(), &[text]);
        }

        #[test]
        fn doing_it_twice_is_doing_it_once(port in 1_u16.., inside in 1_u16.., tls in any::<bool>()) {
            let handlers = if tls { ":tls" } else { "" };
            let list = vec![format!("{port}:{inside}/tcp{handlers}")];
            let once = apply(Vec::new(), &list).unwrap();
            prop_assert_eq!(apply(once.clone(), &list).unwrap(), once);
        }
    }
}
