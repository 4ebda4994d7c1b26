//! What an operator may write as namespace, repository and package, and the addresses made of it.

use crate::config::PorchSettings;
use crate::sink::cluster::escaped;

/// Why a porch sink cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("`{key}` is to be a name of small letters, digits and `-`, at most 63 bytes long")]
    Label { key: &'static str },
    #[error(
        "`edit_package` is to be a package's name, or a path of such names; without its slashes at \
         most 63 bytes long"
    )]
    Package,
}

/// Longest label, and so longest name of a repository, package or workspace.
const LABEL_BYTES_MAX: usize = 63;

/// One Repository, by checked names.
#[derive(Clone, Debug)]
pub struct Site {
    pub namespace: String,
    pub repository: String,
}

impl Site {
    pub fn new(settings: &PorchSettings) -> Result<Self, Error> {
        let label = |key, value: &str| match is_label(value) {
            true => Ok(value.to_owned()),
            false => Err(Error::Label { key }),
        };
        if let Some(package) = &settings.edit_package
            && !is_package(package)
        {
            return Err(Error::Package);
        }
        Ok(Site {
            namespace: label("namespace", &settings.namespace)?,
            repository: label("repository", &settings.repository)?,
        })
    }

    /// Of all revisions.
    pub fn revisions(&self) -> String {
        format!("/apis/porch.kpt.dev/v1alpha1/namespaces/{}/packagerevisions", self.namespace)
    }

    pub fn revision(&self, name: &str) -> String {
        format!("{}/{}", self.revisions(), escaped(name))
    }

    pub fn approval(&self, name: &str) -> String {
        format!("{}/approval", self.revision(name))
    }

    /// Of the files of a revision.
    pub fn resources(&self, name: &str) -> String {
        format!(
            "/apis/porch.kpt.dev/v1alpha1/namespaces/{}/packagerevisionresources/{}",
            self.namespace,
            escaped(name)
        )
    }

    /// Of the Repository itself.
    pub fn repository(&self) -> String {
        format!(
            "/apis/config.porch.kpt.dev/v1alpha1/namespaces/{}/repositories/{}",
            self.namespace, self.repository
        )
    }

    /// The name that Porch gives to a revision.
    pub fn name(&self, package: &str, workspace: &str) -> String {
        format!("{}.{}.{workspace}", self.repository, package.replace('/', "."))
    }
}

fn is_label(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty()
        && text.len() <= LABEL_BYTES_MAX
        && text.bytes().all(is_inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_package(path: &str) -> bool {
    path.split('/').all(is_label) && path.replace('/', "").len() <= LABEL_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_labels_and_a_package_is_a_path_of_them() {
        for good in ["a", "edge-1", "0", &"x".repeat(63)] {
            assert!(is_label(good), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a/b", "a_b", "ä", &"x".repeat(64)] {
            assert!(!is_label(bad), "{bad}");
        }
        assert!(is_package("a/b-c"));
        for bad in ["", "/a", "a//b", "a/", "../a", &format!("{}/a", "x".repeat(63))] {
            assert!(!is_package(bad), "{bad}");
        }
    }

    #[test]
    fn addresses_hold_the_names() {
        let site = Site { namespace: "ns".to_owned(), repository: "r".to_owned() };
        assert_eq!(site.name("p/q", "w"), "r.p.q.w");
        assert_eq!(
            site.approval("r.p.w"),
            "/apis/porch.kpt.dev/v1alpha1/namespaces/ns/packagerevisions/r.p.w/approval"
        );
        assert_eq!(
            site.repository(),
            "/apis/config.porch.kpt.dev/v1alpha1/namespaces/ns/repositories/r"
        );
    }
}
