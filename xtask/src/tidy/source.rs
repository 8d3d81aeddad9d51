//! Rules of one Rust file.

use std::path::Path;

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

const MAX_FILE_LINES: usize = 600;
const MAX_FUNCTION_LINES: usize = 70;
/// Modules in which `unsafe` may stand.
const UNSAFE_HOMES: [&str; 3] = [
    "crates/host/src/sys",
    "crates/init/src/sys",
    "crates/host/src/helper",
];

/// Calls that have one door (D16), and where it stands. A file under one of the homes may use
/// the call; so may tests, and crates that are not in the list.
const DOORS: [Door; 6] = [
    Door {
        call: &["env", "var"],
        crates: ALL,
        homes: &["crates/cli/src/context"],
    },
    Door {
        call: &["Command", "new"],
        crates: ALL,
        homes: &[
            "crates/cli/src/build",
            "crates/client/src/ssh",
            "crates/host/src/helper",
            "crates/host/src/net",
            "crates/host/src/sys",
            "crates/host/src/runtime/container",
            "crates/host/src/probe",
        ],
    },
    Door {
        call: &["SystemTime", "now"],
        crates: ALL,
        homes: &["crates/init", "crates/host/src/sys"],
    },
    Door {
        call: &["Instant", "now"],
        crates: &["config", "deploy"],
        homes: &[],
    },
    Door {
        call: &["tokio", "spawn"],
        crates: &["host", "server", "proxy"],
        homes: &[],
    },
    Door {
        call: &["thread", "spawn"],
        crates: &["host", "server"],
        homes: &["crates/host/src/sys", "crates/host/src/net"],
    },
];
const ALL: &[&str] = &[
    "client", "config", "deploy", "store", "image", "server", "graphql", "host", "proxy", "dns",
    "node", "cli",
];

struct Door {
    call: &'static [&'static str],
    crates: &'static [&'static str],
    homes: &'static [&'static str],
}

/// Checks one file and adds what is broken.
pub(super) fn check(file: &Path, text: &str, breaches: &mut Vec<String>) {
    let name = file.display().to_string();
    if name.ends_with("/mod.rs") {
        breaches.push(format!(
            "{name}: a module is foo.rs beside foo/, never mod.rs"
        ));
    }
    let parsed = match syn::parse_file(text) {
        Ok(parsed) => parsed,
        Err(error) => return breaches.push(format!("{name}: {error}")),
    };
    let is_test = name.contains("/tests/")
        || name.ends_with("/tests.rs")
        || name.starts_with("crates/testkit/");
    if !is_test && !text.starts_with("//!") {
        breaches.push(format!("{name}:1: a file begins with its module doc"));
    }
    let mut scan = Scan {
        name: &name,
        breaches,
        in_tests: is_test,
        test_lines: 0,
    };
    scan.visit_file(&parsed);
    let lines = text.lines().count() - scan.test_lines;
    if !is_test && lines > MAX_FILE_LINES {
        breaches.push(format!(
            "{name}: {lines} lines without tests, at most {MAX_FILE_LINES}"
        ));
    }
}

struct Scan<'a> {
    name: &'a str,
    breaches: &'a mut Vec<String>,
    in_tests: bool,
    test_lines: usize,
}

impl Scan<'_> {
    fn door(&mut self, path: &syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        for door in &DOORS {
            let inside = door
                .crates
                .iter()
                .any(|c| self.name.starts_with(&format!("crates/{c}/src")));
            let home = door.homes.iter().any(|home| self.name.starts_with(home));
            let is_call = names.len() >= 2 && names[names.len() - 2..].iter().eq(door.call);
            if inside && !home && !self.in_tests && is_call {
                let line = path.span().start().line;
                self.breaches.push(format!(
                    "{}:{line}: {} has its own door",
                    self.name,
                    door.call.join("::")
                ));
            }
        }
    }

    fn function(&mut self, name: &syn::Ident, body: Span) {
        let lines = length(body);
        if !self.in_tests && lines > MAX_FUNCTION_LINES + 2 {
            let line = body.start().line;
            self.breaches.push(format!(
                "{}:{line}: fn {name} has {lines} lines, at most {MAX_FUNCTION_LINES}",
                self.name
            ));
        }
    }
}

impl<'ast> Visit<'ast> for Scan<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let before = self.in_tests;
        if is_cfg_test(&item.attrs) {
            self.in_tests = true;
            self.test_lines += length(item.span());
        }
        visit::visit_item_mod(self, item);
        self.in_tests = before;
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig.ident, item.block.span());
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig.ident, item.block.span());
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        if let syn::Expr::Path(path) = call.func.as_ref() {
            self.door(&path.path);
        }
        visit::visit_expr_call(self, call);
    }

    fn visit_expr_unsafe(&mut self, block: &'ast syn::ExprUnsafe) {
        if !self.in_tests && !UNSAFE_HOMES.iter().any(|home| self.name.starts_with(home)) {
            let line = block.span().start().line;
            self.breaches.push(format!(
                "{}:{line}: unsafe stands in the sys modules alone",
                self.name
            ));
        }
        visit::visit_expr_unsafe(self, block);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if !self.in_tests && call.method == "unwrap" {
            let line = call.method.span().start().line;
            self.breaches
                .push(format!("{}:{line}: unwrap outside tests", self.name));
        }
        visit::visit_expr_method_call(self, call);
    }
}

fn length(span: Span) -> usize {
    span.end().line + 1 - span.start().line
}

fn is_cfg_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|a| {
        a.path().is_ident("cfg")
            && a.parse_args::<syn::Path>()
                .is_ok_and(|p| p.is_ident("test"))
    })
}
