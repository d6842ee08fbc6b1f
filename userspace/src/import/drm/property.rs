//! The properties of a KMS object, by name.

use std::collections::HashMap;

use drm::control::{Device as _, RawResourceHandle, ResourceHandle, property};

use super::DrmError;
use super::card::Inner;

/// What an object has, and its values when it was asked.
#[derive(Debug)]
pub(super) struct Properties {
    card: String,
    /// Of the object, in words, such as `plane 31`.
    object: String,
    raw: RawResourceHandle,
    by_name: HashMap<String, (property::Handle, u64)>,
}

impl Inner {
    /// Of an object that is called so in errors, such as `plane`.
    pub(super) fn properties(
        &self,
        kind: &str,
        handle: impl ResourceHandle,
    ) -> Result<Properties, DrmError> {
        let set = self
            .get_properties(handle)
            .map_err(self.failed("MODE_OBJ_GETPROPERTIES"))?;
        let raw: RawResourceHandle = handle.into();
        let mut by_name = HashMap::new();
        for (&property, &value) in set.iter() {
            let info = self
                .get_property(property)
                .map_err(self.failed("MODE_GETPROPERTY"))?;
            let name = info.name().to_string_lossy().into_owned();
            by_name.insert(name, (property, value));
        }
        Ok(Properties {
            card: self.to_string(),
            object: format!("{kind} {}", u32::from(raw)),
            raw,
            by_name,
        })
    }
}

impl Properties {
    pub(super) fn value(&self, name: &str) -> Option<u64> {
        Some(self.by_name.get(name)?.1)
    }

    /// The object, and its property of this name, for a commit.
    pub(super) fn place(
        &self,
        name: &'static str,
    ) -> Result<(RawResourceHandle, property::Handle), DrmError> {
        match self.by_name.get(name) {
            Some((property, _)) => Ok((self.raw, *property)),
            None => Err(DrmError::NoProperty {
                card: self.card.clone(),
                object: self.object.clone(),
                property: name,
            }),
        }
    }
}
