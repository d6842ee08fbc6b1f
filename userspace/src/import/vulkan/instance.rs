//! The loader, an instance of it, and what the validation layer says.

use std::ffi::{CStr, c_void};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ash::vk;

use super::device;
use super::error::VulkanError;

/// The layer that checks every call against the specification.
const LAYER: &CStr = c"VK_LAYER_KHRONOS_validation";

/// What the validation layer said of one call.
///
/// ```
/// use dmashare::import::vulkan::Message;
/// # fn show(message: &Message) {
/// println!("{message}");
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// Whether the call was wrong, and not only unwise.
    pub is_error: bool,
    /// The rule that was broken, as the specification numbers it.
    pub rule: String,
    /// What was wrong, in the layer's words.
    pub text: String,
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.is_error {
            true => "error",
            false => "warning",
        };
        write!(f, "{severity} {}: {}", self.rule, self.text)
    }
}

/// What the validation layer has said so far: of a [`Gpu`](super::Gpu) that was
/// [opened with it](super::Gpu::open_validated), also after that was dropped.
///
/// One thing is left out where it is known to be wrong. The layer takes what an
/// image can do from `VkDrmFormatModifierPropertiesList2EXT`. lavapipe of Mesa
/// 25.0 fills the older list only (lvp_formats.c), and so the layer holds that
/// its images can do nothing, against VUID-VkImageViewCreateInfo-None-02273.
/// Where the device's lists are seen to disagree so, that rule is not looked at:
/// what the older list says is checked by every import.
///
/// ```no_run
/// // Not run: needs a driver and the validation layer.
/// use dmashare::import::vulkan::{Device, Gpu};
/// let gpu = Gpu::open_validated(&Device::Software)?;
/// let messages = gpu.messages();
/// drop(gpu);
/// // Whatever it did not destroy would be told now.
/// assert_eq!(messages.all(), []);
/// # Ok::<(), dmashare::import::vulkan::VulkanError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Messages(Arc<Mutex<Said>>);

#[derive(Debug, Default)]
struct Said {
    all: Vec<Message>,
    lists_disagree: bool,
}

/// That an image view is of a format and layout that can do something.
const OF_SOME_USE: &str = "VUID-VkImageViewCreateInfo-None-02273";

impl Messages {
    /// All of them, in order.
    ///
    /// ```
    /// use dmashare::import::vulkan::Messages;
    /// assert_eq!(Messages::default().all(), []);
    /// ```
    pub fn all(&self) -> Vec<Message> {
        self.said().all.clone()
    }

    /// That the layer is told nothing of what images can do.
    pub(super) fn lists_disagree(&self) {
        self.said().lists_disagree = true;
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        lock(&self.0)
    }
}

impl Said {
    fn push(&mut self, message: Message) {
        if !(self.lists_disagree && message.rule == OF_SOME_USE) {
            self.all.push(message);
        }
    }
}

/// A message is whole before it is pushed, whoever panicked meanwhile.
fn lock(said: &Mutex<Said>) -> MutexGuard<'_, Said> {
    said.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An instance, destroyed on drop.
pub(super) struct Instance {
    pub(super) raw: ash::Instance,
    /// What the messenger points to, and so kept as long as there is one.
    pub(super) messages: Messages,
    messenger: Option<(ash::ext::debug_utils::Instance, vk::DebugUtilsMessengerEXT)>,
    // Last: it keeps the library loaded.
    _entry: ash::Entry,
}

impl Instance {
    pub(super) fn new(validated: bool) -> Result<Instance, VulkanError> {
        const ON: &str = "the Vulkan loader";
        // SAFETY: libvulkan.so.1 is the ABI name of the loader; loading it runs
        // only its own constructors.
        let entry = unsafe { ash::Entry::load() }
            .map_err(|error| VulkanError::Library(error.to_string().into()))?;
        // SAFETY: the library is loaded, here and below.
        let version = unsafe { entry.try_enumerate_instance_version() }
            .map_err(VulkanError::failed("vkEnumerateInstanceVersion", ON))?;
        if version.is_none_or(|version| version < device::VERSION) {
            return Err(VulkanError::Missing {
                on: ON.to_owned(),
                names: vec!["Vulkan 1.2"],
                advice: "install a newer one (Debian 12 and later: libvulkan1)",
            });
        }
        if validated {
            // SAFETY: see above.
            let layers = unsafe { entry.enumerate_instance_layer_properties() }.map_err(
                VulkanError::failed("vkEnumerateInstanceLayerProperties", ON),
            )?;
            let mut names = layers.iter().map(|layer| layer.layer_name_as_c_str());
            if !names.any(|name| name == Ok(LAYER)) {
                return Err(VulkanError::NoValidation {
                    layer: "VK_LAYER_KHRONOS_validation",
                });
            }
        }

        let messages = Messages::default();
        let mut messenger = vk::DebugUtilsMessengerCreateInfoEXT::default()
            .message_severity(
                vk::DebugUtilsMessageSeverityFlagsEXT::ERROR
                    | vk::DebugUtilsMessageSeverityFlagsEXT::WARNING,
            )
            // Not what the loader says of drivers that it did not load.
            .message_type(
                vk::DebugUtilsMessageTypeFlagsEXT::VALIDATION
                    | vk::DebugUtilsMessageTypeFlagsEXT::PERFORMANCE,
            )
            .pfn_user_callback(Some(say))
            .user_data(Arc::as_ptr(&messages.0).cast_mut().cast());
        let mut features = vk::ValidationFeaturesEXT::default().enabled_validation_features(&[
            vk::ValidationFeatureEnableEXT::SYNCHRONIZATION_VALIDATION,
        ]);

        let application = vk::ApplicationInfo::default()
            .application_name(c"dmashare")
            .api_version(device::VERSION);
        let mut create = vk::InstanceCreateInfo::default().application_info(&application);
        let layers = [LAYER.as_ptr()];
        let extensions = [
            ash::ext::debug_utils::NAME.as_ptr(),
            ash::ext::validation_features::NAME.as_ptr(),
        ];
        let for_create = messenger;
        if validated {
            create = create
                .enabled_layer_names(&layers)
                .enabled_extension_names(&extensions)
                .push_next(&mut features)
                // For what is said while the instance is made and destroyed.
                .push_next(&mut messenger);
        }
        // SAFETY: the structs are complete and alive for the call, and what the
        // messenger points to lives as long as the instance.
        let raw = unsafe { entry.create_instance(&create, None) }
            .map_err(VulkanError::failed("vkCreateInstance", ON))?;
        let mut instance = Instance {
            raw,
            messages,
            messenger: None,
            _entry: entry,
        };
        if validated {
            instance.listen(&for_create)?;
        }
        Ok(instance)
    }

    /// Collects what is said between making and destroying the instance.
    fn listen(
        &mut self,
        create: &vk::DebugUtilsMessengerCreateInfoEXT<'_>,
    ) -> Result<(), VulkanError> {
        let functions = ash::ext::debug_utils::Instance::new(&self._entry, &self.raw);
        // SAFETY: the instance has this extension.
        let messenger = unsafe { functions.create_debug_utils_messenger(create, None) };
        let messenger = messenger.map_err(VulkanError::failed(
            "vkCreateDebugUtilsMessengerEXT",
            "the Vulkan loader",
        ))?;
        self.messenger = Some((functions, messenger));
        Ok(())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some((functions, messenger)) = &self.messenger {
            // SAFETY: made on this instance, destroyed once.
            unsafe { functions.destroy_debug_utils_messenger(*messenger, None) };
        }
        // SAFETY: whoever made something of it holds it, so all is destroyed.
        unsafe { self.raw.destroy_instance(None) };
    }
}

/// What the layer calls, on whichever thread made the call it objects to.
unsafe extern "system" fn say(
    severity: vk::DebugUtilsMessageSeverityFlagsEXT,
    _types: vk::DebugUtilsMessageTypeFlagsEXT,
    data: *const vk::DebugUtilsMessengerCallbackDataEXT<'_>,
    messages: *mut c_void,
) -> vk::Bool32 {
    // SAFETY: `Instance::new` gave it this pointer and keeps what it points to;
    // the data lives for the call, and the strings in it end with NUL.
    let (messages, data) = unsafe { (&*messages.cast::<Mutex<Said>>(), &*data) };
    // SAFETY: see above.
    let said = unsafe { [data.message_id_name_as_c_str(), data.message_as_c_str()] };
    let [rule, text] = said.map(|text| text.unwrap_or_default().to_string_lossy().into_owned());
    lock(messages).push(Message {
        is_error: severity.contains(vk::DebugUtilsMessageSeverityFlagsEXT::ERROR),
        rule,
        text,
    });
    // The call goes on as it would without the layer.
    vk::FALSE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_rule_is_left_out_where_it_cannot_be_checked() {
        let message = |rule: &str| Message {
            is_error: true,
            rule: rule.to_owned(),
            text: String::new(),
        };
        let messages = Messages::default();
        messages.said().push(message(OF_SOME_USE));
        messages.lists_disagree();
        messages.said().push(message(OF_SOME_USE));
        messages
            .said()
            .push(message("VUID-VkImageViewCreateInfo-None-02274"));
        let rules = messages.all().into_iter().map(|message| message.rule);
        let expected = [OF_SOME_USE, "VUID-VkImageViewCreateInfo-None-02274"];
        assert!(rules.eq(expected));
    }
}
