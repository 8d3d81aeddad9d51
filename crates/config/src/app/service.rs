//! `[http_service]` and `[[services]]`.

use super::check::{HttpCheck, MachineCheck, TcpCheck};
use crate::schema::{always_of, key_of, kind_type, kind_value, section};

section! {
    /// Shorthand for a web service: port 80 with http, port 443 with http and tls.
    HttpService {
        /// The port that the app listens on.
        internal_port: Int;
        /// Answer plain HTTP with a redirect to https.
        force_https: Flag;
        /// Stop or suspend Machines that are not needed.
        auto_stop_machines: Autostop;
        /// Start stopped Machines when a request needs them; yes where it is absent.
        auto_start_machines: FlagPtr;
        /// How many stay up in the primary region.
        min_machines_running: IntPtr;
        /// The groups that serve it.
        processes: Texts;
        /// Limits of one Machine.
        concurrency: Table(Concurrency);
        /// Options of the tls and pg_tls handlers.
        tls_options: Table(TlsOptions);
        /// Options of the http handler.
        http_options: Table(HttpOptions);
        /// HTTP checks that steer the proxy.
        checks: List(HttpCheck);
        /// Test Machines.
        machine_checks: List(MachineCheck);
    }
}

section! {
    /// A port of the app and the external ports that lead to it.
    ServiceSection {
        /// tcp or udp.
        protocol: Text, Toml;
        /// The port that the app listens on.
        internal_port: Int, Toml;
        /// Stop or suspend Machines that are not needed.
        auto_stop_machines: Autostop;
        /// Start stopped Machines when a connection needs them; yes where it is absent.
        auto_start_machines: FlagPtr;
        /// How many stay up in the primary region.
        min_machines_running: IntPtr;
        /// The external ports.
        ports: List(Port), Toml;
        /// Limits of one Machine; the old text "SOFT,HARD" counts requests.
        concurrency: Table(Concurrency);
        /// TCP checks that steer the proxy.
        tcp_checks: List(TcpCheck);
        /// HTTP checks that steer the proxy.
        http_checks: List(HttpCheck);
        /// Test Machines.
        machine_checks: List(MachineCheck);
        /// The groups that serve it.
        processes: Texts;
    }
}

section! {
    /// An external port, or a range of them.
    Port {
        /// One port.
        port: IntPtr;
        /// The first of a range.
        start_port: IntPtr;
        /// The last of a range.
        end_port: IntPtr;
        /// http, tls, proxy_proto, pg_tls; none passes TCP through.
        handlers: Texts;
        /// Answer plain HTTP with a redirect to https.
        force_https: Flag;
        /// Options of the tls and pg_tls handlers.
        tls_options: Table(TlsOptions);
        /// Options of the http handler.
        http_options: Table(HttpOptions);
        /// Options of the proxy_proto handler.
        proxy_proto_options: Table(ProxyProto);
    }
}

section! {
    /// Limits of one Machine.
    Concurrency {
        /// What is counted: connections (default) or requests.
        kind = "type": Text;
        /// Never more than this.
        hard_limit: Int;
        /// From here on others are preferred; 20 where it is absent.
        soft_limit: Int;
    }
}

section! {
    /// Options of the tls handler.
    TlsOptions {
        /// Protocols that are offered.
        alpn: Texts;
        /// Versions that are offered: TLSv1.2, TLSv1.3 or both.
        versions: Texts;
        /// A self-signed certificate where there is no other; here all are.
        default_self_signed: FlagPtr;
    }
}

section! {
    /// Options of the http handler.
    HttpOptions {
        /// Compress answers for clients that take it.
        compress: FlagPtr;
        /// What is done to answers.
        response: Table(HttpResponse);
        /// Speak HTTP/2 without TLS to the app.
        h2_backend: FlagPtr;
        /// Seconds after which a connection to the app on which nothing moves is closed.
        idle_timeout: U32Ptr;
        /// Seconds that the app may take to begin its answer.
        headers_read_timeout: U32Ptr;
        /// Which answers with fly-replay are remembered.
        replay_cache: List(ReplayCache);
    }
}

section! {
    /// What is done to answers.
    HttpResponse {
        /// Headers: false removes one, a text or a list of texts sets it.
        headers: AnyMap;
        /// Add no headers of the proxy's own.
        pristine: FlagPtr;
    }
}

section! {
    /// Which answers with fly-replay are remembered.
    ReplayCache {
        /// Requests whose path begins so.
        path_prefix: Text, Both;
        /// For how long.
        ttl_seconds: Int, Both;
        /// cookie or header.
        kind = "type": Text, Both;
        /// Its name.
        name: Text, Both;
        /// Whether a client may ask for a new answer.
        allow_bypass: Flag;
    }
}

section! {
    /// Options of the proxy_proto handler.
    ProxyProto {
        /// v1 (a line of text) where it is absent, or v2 (binary).
        version: Text;
    }
}
