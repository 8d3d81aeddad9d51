//! The builders: how each is asked whether it works, and told what to build.
//!
//! Pure but for [`Builder::works`]: a plan in, the words of a command line out.

use std::path::Path;
use std::process::{Command, Stdio};

use super::dockerfile::Plan;

/// A program that builds Dockerfiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Builder {
    /// docker, with its daemon.
    Docker,
    /// buildah, which needs none.
    Buildah,
    /// podman, which needs none.
    Podman,
    /// BuildKit's own client, with a daemon where BUILDKIT_HOST says.
    Buildkit,
}

/// In the order in which they are tried.
pub(super) const ALL: [Builder; 4] = [
    Builder::Docker,
    Builder::Buildah,
    Builder::Podman,
    Builder::Buildkit,
];

/// A secret in a file of its own.
pub(super) type SecretFile = (String, std::path::PathBuf);

impl Builder {
    /// Returns the name of its program.
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Buildah => "buildah",
            Self::Podman => "podman",
            Self::Buildkit => "buildctl",
        }
    }

    /// Returns a command that succeeds when it is installed and can do its work: docker's and
    /// BuildKit's clients alone cannot.
    fn question(self) -> &'static [&'static str] {
        match self {
            Self::Docker => &["info"],
            Self::Buildah | Self::Podman => &["version"],
            Self::Buildkit => &["debug", "workers"],
        }
    }

    pub(super) fn works(self) -> bool {
        Command::new(self.program())
            .args(self.question())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }

    /// Returns whether it writes the archive while it builds: no name is needed then.
    pub(super) fn writes_at_once(self) -> bool {
        self == Self::Buildkit
    }

    /// Returns the words that build the plan under a name, or into an archive.
    pub(super) fn build(
        self,
        plan: &Plan,
        secrets: &[SecretFile],
        name: &str,
        archive: &Path,
    ) -> Vec<String> {
        match self {
            Self::Buildkit => buildctl(plan, secrets, archive),
            _ => self.classic(plan, secrets, name),
        }
    }

    fn classic(self, plan: &Plan, secrets: &[SecretFile], name: &str) -> Vec<String> {
        let mut words = vec!["build".to_owned()];
        let mut option = |key: &str, value: String| words.extend([key.to_owned(), value]);
        option("--file", shown(&plan.dockerfile));
        option("--tag", name.to_owned());
        if let Some(target) = &plan.target {
            option("--target", target.clone());
        }
        for (name, value) in &plan.args {
            option("--build-arg", format!("{name}={value}"));
        }
        for (name, value) in &plan.labels {
            option("--label", format!("{name}={value}"));
        }
        for (name, file) in secrets {
            option("--secret", format!("id={name},src={}", shown(file)));
        }
        // docker takes the one beside the Dockerfile (see `dockerfile::beside`).
        if let Some(file) = plan.ignorefile.as_ref().filter(|_| self != Self::Docker) {
            option("--ignorefile", shown(file));
        }
        if plan.no_cache {
            words.push("--no-cache".to_owned());
        }
        words.push(shown(&plan.dir));
        words
    }

    /// Returns the words that write a built image into an archive.
    pub(super) fn save(self, name: &str, archive: &Path) -> Vec<String> {
        let archive = shown(archive);
        let words: &[&str] = match self {
            Self::Buildah => &["push", name, &format!("oci-archive:{archive}")],
            _ => &["save", "--output", &archive, name],
        };
        words.iter().map(|w| (*w).to_owned()).collect()
    }
}

fn buildctl(plan: &Plan, secrets: &[SecretFile], archive: &Path) -> Vec<String> {
    let dir = shown(&plan.dir);
    let home = plan.dockerfile.parent().map(shown).unwrap_or_default();
    let name = plan.dockerfile.file_name().unwrap_or_default();
    let mut words: Vec<String> = ["build", "--frontend", "dockerfile.v0"]
        .map(str::to_owned)
        .into();
    let mut option = |key: &str, value: String| words.extend([key.to_owned(), value]);
    option("--local", format!("context={dir}"));
    option("--local", format!("dockerfile={home}"));
    option("--opt", format!("filename={}", name.to_string_lossy()));
    if let Some(target) = &plan.target {
        option("--opt", format!("target={target}"));
    }
    for (name, value) in &plan.args {
        option("--opt", format!("build-arg:{name}={value}"));
    }
    for (name, value) in &plan.labels {
        option("--opt", format!("label:{name}={value}"));
    }
    for (name, file) in secrets {
        option("--secret", format!("id={name},src={}", shown(file)));
    }
    option("--output", format!("type=docker,dest={}", shown(archive)));
    if plan.no_cache {
        words.push("--no-cache".to_owned());
    }
    words
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            dir: "/src".into(),
            dockerfile: "/src/docker/Own".into(),
            ignorefile: Some("/src/own.ignore".into()),
            target: Some("right".to_owned()),
            args: vec![("A".to_owned(), "1 2".to_owned())],
            secrets: Vec::new(),
            labels: vec![("L".to_owned(), "x y".to_owned())],
            no_cache: true,
        }
    }

    #[test]
    fn each_builder_is_told_everything_in_its_own_words() {
        let secrets = [("KEY".to_owned(), "/tmp/s/KEY".into())];
        let words =
            |builder: Builder| builder.build(&plan(), &secrets, "name:1", Path::new("/tmp/i.tar"));
        let classic = "build --file /src/docker/Own --tag name:1 --target right --build-arg A=1 2 --label L=x y --secret id=KEY,src=/tmp/s/KEY";
        let docker = words(Builder::Docker).join(" ");
        assert_eq!(docker, format!("{classic} --no-cache /src"));
        for builder in [Builder::Buildah, Builder::Podman] {
            let said = words(builder).join(" ");
            assert_eq!(
                said,
                format!("{classic} --ignorefile /src/own.ignore --no-cache /src")
            );
        }
        let buildkit = words(Builder::Buildkit).join(" ");
        assert_eq!(
            buildkit,
            "build --frontend dockerfile.v0 --local context=/src --local dockerfile=/src/docker --opt filename=Own --opt target=right --opt build-arg:A=1 2 --opt label:L=x y --secret id=KEY,src=/tmp/s/KEY --output type=docker,dest=/tmp/i.tar --no-cache"
        );
        let saved = Builder::Buildah
            .save("name:1", Path::new("/i.tar"))
            .join(" ");
        assert_eq!(saved, "push name:1 oci-archive:/i.tar");
        let saved = Builder::Docker
            .save("name:1", Path::new("/i.tar"))
            .join(" ");
        assert_eq!(saved, "save --output /i.tar name:1");
    }
}
