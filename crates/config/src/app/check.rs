//! Checks: of services, of the top level, and test Machines.

use crate::schema::{always_of, key_of, kind_type, kind_value, section};

section! {
    /// A check that a port accepts connections. A bare number counts milliseconds.
    TcpCheck {
        /// Time between probes.
        interval: Duration;
        /// Time that one probe may take.
        timeout: Duration;
        /// Time after the start in which failures do not count.
        grace_period: Duration;
    }
}

section! {
    /// A check that a request is answered with 2xx.
    HttpCheck {
        /// Time between probes.
        interval: Duration;
        /// Time that one probe may take.
        timeout: Duration;
        /// Time after the start in which failures do not count.
        grace_period: Duration;
        /// The request's method; GET where it is absent.
        method: TextPtr;
        /// Its path.
        path: TextPtr;
        /// http or https.
        protocol: TextPtr;
        /// Accept any certificate.
        tls_skip_verify: FlagPtr;
        /// The name that the certificate must have.
        tls_server_name: TextPtr;
        /// Headers of the request.
        headers: TextMap;
    }
}

section! {
    /// A check that gates a deploy and is shown, but does not steer the proxy.
    CheckSection {
        /// Its port; that of the group's http_service where it is absent.
        port: IntPtr;
        /// tcp or http.
        kind = "type": TextPtr;
        /// Time between probes, at least 2 s.
        interval: Duration;
        /// Time that one probe may take, at most 60 s.
        timeout: Duration;
        /// Time after the start in which failures do not count.
        grace_period: Duration;
        /// The request's method; GET where it is absent.
        method: TextPtr;
        /// Its path.
        path: TextPtr;
        /// http or https.
        protocol: TextPtr;
        /// Accept any certificate.
        tls_skip_verify: FlagPtr;
        /// The name that the certificate must have.
        tls_server_name: TextPtr;
        /// Headers of the request.
        headers: TextMap;
        /// The groups that have it.
        processes: Texts;
    }
}

section! {
    /// A Machine that runs a command against each new Machine of a deploy and must exit with 0.
    MachineCheck {
        /// The command.
        command: Texts;
        /// Its image; the tested Machine's where it is absent.
        image: Text;
        /// Instead of the image's ENTRYPOINT.
        entrypoint: Texts;
        /// Signal that stops it.
        kill_signal: TextPtr;
        /// Time between that signal and SIGKILL.
        kill_timeout: Duration;
    }
}
