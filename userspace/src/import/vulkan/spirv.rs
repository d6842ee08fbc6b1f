//! What is in a SPIR-V module, as far as drawing must know.
//!
//! The driver believes a shader: one that reads a texture that it was not given
//! is undefined behaviour. So what it declares is read here first.
//!
//! # Sources
//! The [SPIR-V specification](https://registry.khronos.org/SPIR-V/specs/unified1/SPIRV.html),
//! 2.3 and 3.

use std::collections::BTreeMap;
use std::ffi::CString;

/// The most textures that a shader can read.
pub(super) const MAX_TEXTURES: usize = TEXTURE_COUNT as usize;

/// As Vulkan counts them.
pub(super) const TEXTURE_COUNT: u32 = 8;

/// The set with the textures, from binding 0 on.
const TEXTURES: u32 = 0;

/// The set with the samplers: the nearest texel, and a linear mix.
const SAMPLERS: u32 = 1;
const SAMPLER_COUNT: u32 = 2;

/// What a fragment shader wants.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Interface {
    /// The name of its entry point.
    pub(super) entry: CString,
    /// How many textures it reads, counted to the last.
    pub(super) textures: usize,
}

const MAGIC: u32 = 0x0723_0203;
/// Vulkan 1.2 takes SPIR-V up to 1.5.
const NEWEST: u32 = 0x0001_0500;
const HEADER: usize = 5;

const OP_ENTRY_POINT: u32 = 15;
const OP_CAPABILITY: u32 = 17;
const OP_VARIABLE: u32 = 59;
const OP_DECORATE: u32 = 71;
const FRAGMENT: u32 = 4;
const BINDING: u32 = 33;
const DESCRIPTOR_SET: u32 = 34;
/// Images and samplers are `UniformConstant`.
const UNIFORM_CONSTANT: u32 = 0;
/// What a shader has without a set: input, output, and its own.
const NEEDS_NO_SET: [u32; 4] = [1, 3, 6, 7];
/// Matrix, Shader, Sampled1D, ImageQuery and DerivativeControl need no feature
/// of the device.
const CAPABILITIES: [u32; 5] = [0, 1, 43, 50, 51];

/// What this module wants, if it is a fragment shader that can be drawn with.
pub(super) fn interface(words: &[u32]) -> Result<Interface, String> {
    match words {
        [MAGIC, version, _, _, 0, ..] if *version <= NEWEST => {}
        [MAGIC, version, ..] => return Err(format!("SPIR-V of version {version:#x}, not 1.5")),
        [first, ..] if *first == MAGIC.swap_bytes() => {
            return Err("its bytes are in the other order; read it as little-endian words".into());
        }
        _ => return Err("it does not begin as SPIR-V does".into()),
    }
    let mut entry = None;
    let mut places: BTreeMap<u32, Place> = BTreeMap::new();
    for instruction in instructions(words) {
        let (operation, operands) = instruction?;
        match (operation, operands) {
            (OP_ENTRY_POINT, [FRAGMENT, _, name @ ..]) => match entry {
                None => entry = Some(string(name)?),
                Some(_) => return Err("it has more than one entry point for fragments".into()),
            },
            (OP_CAPABILITY, [capability]) if !CAPABILITIES.contains(capability) => {
                return Err(format!(
                    "it wants capability {capability}, which is not enabled"
                ));
            }
            (OP_DECORATE, [target, BINDING, binding]) => {
                places.entry(*target).or_default().binding = Some(*binding);
            }
            (OP_DECORATE, [target, DESCRIPTOR_SET, set]) => {
                places.entry(*target).or_default().set = Some(*set);
            }
            (OP_VARIABLE, [_, id, storage, ..]) => {
                places.entry(*id).or_default().storage = Some(*storage);
            }
            _ => {}
        }
    }
    let textures = places.values().map(Place::texture);
    let textures = textures.collect::<Result<Vec<_>, _>>()?;
    Ok(Interface {
        entry: entry.ok_or("it has no entry point for fragments")?,
        textures: textures.into_iter().max().unwrap_or(0),
    })
}

/// Where a variable lies.
#[derive(Default)]
struct Place {
    set: Option<u32>,
    binding: Option<u32>,
    storage: Option<u32>,
}

impl Place {
    /// The number of textures that there must be for this variable.
    fn texture(&self) -> Result<usize, String> {
        let (set, binding) = match (self.storage, self.set, self.binding) {
            (Some(UNIFORM_CONSTANT), Some(set), Some(binding)) => (set, binding),
            (Some(storage), ..) if NEEDS_NO_SET.contains(&storage) => return Ok(0),
            (None, ..) => return Ok(0),
            _ => return Err("it reads something else than textures and samplers".into()),
        };
        let place = binding as usize;
        match set {
            TEXTURES if place < MAX_TEXTURES => Ok(place + 1),
            SAMPLERS if binding < SAMPLER_COUNT => Ok(0),
            _ => Err(format!(
                "it reads binding {binding} of set {set}; textures are 0 to {} of set {TEXTURES}, \
                 and of set {SAMPLERS} 0 is a sampler of the nearest texel, 1 a linear one",
                MAX_TEXTURES - 1
            )),
        }
    }
}

/// The instructions of a module with a whole header: operation and operands.
fn instructions(words: &[u32]) -> impl Iterator<Item = Result<(u32, &[u32]), String>> {
    let mut rest = words.get(HEADER..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (first, _) = rest.split_first()?;
        let (length, operation) = ((first >> 16) as usize, first & 0xffff);
        match (length, rest.get(1..length)) {
            (1.., Some(operands)) => {
                rest = &rest[length..];
                Some(Ok((operation, operands)))
            }
            _ => {
                rest = &[];
                Some(Err("an instruction ends beyond its end".to_owned()))
            }
        }
    })
}

/// A string in words, up to its NUL.
fn string(words: &[u32]) -> Result<CString, String> {
    let bytes = words.iter().flat_map(|word| word.to_le_bytes());
    let bytes = bytes.take_while(|byte| *byte != 0).collect::<Vec<_>>();
    CString::new(bytes).map_err(|error| error.to_string())
}

/// One triangle that covers the target, without a vertex buffer.
///
/// Compiled by naga of the WGSL in the tests below, where they are compared; an
/// instruction a line.
#[rustfmt::skip]
pub(super) const FULL_SCREEN: &[u32] = &[
    // Header: magic, version 1.0 or later, no compiler, bound, schema.
    0x07230203, 0x10000, 0, 0x1c, 0,
    0x00020011, 1,
    0x0006000b, 1, 0x4c534c47, 0x6474732e, 0x3035342e, 0,
    0x0003000e, 0, 1,
    0x0007000f, 0, 12, 0x6e69616d, 0, 7, 10,
    0x00040047, 7, 11, 42,
    0x00040047, 10, 11, 0,
    0x00020013, 2,
    0x00040015, 3, 32, 0,
    0x00030016, 5, 32,
    0x00040017, 4, 5, 4,
    0x00040020, 8, 1, 3,
    0x0004003b, 8, 7, 1,
    0x00040020, 11, 3, 4,
    0x0004003b, 11, 10, 3,
    0x00030021, 13, 2,
    0x0004002b, 3, 14, 1,
    0x0004002b, 5, 15, 0x40800000,
    0x0004002b, 5, 16, 0x3f800000,
    0x0004002b, 5, 17, 0,
    0x00050036, 2, 12, 0, 13,
    0x000200f8, 6,
    0x0004003d, 3, 9, 7,
    0x000200f9, 18,
    0x000200f8, 18,
    0x000500c7, 3, 19, 9, 14,
    0x00040070, 5, 20, 19,
    0x000500c2, 3, 21, 9, 14,
    0x00040070, 5, 22, 21,
    0x00050085, 5, 23, 20, 15,
    0x00050083, 5, 24, 23, 16,
    0x00050085, 5, 25, 22, 15,
    0x00050083, 5, 26, 25, 16,
    0x00070050, 4, 27, 24, 26, 17, 16,
    0x0003003e, 10, 27,
    0x000100fd,
    0x00010038,
];

#[cfg(test)]
mod tests {
    use super::*;
    use naga::back::spv;

    const SOURCE: &str = "
        @vertex fn main(@builtin(vertex_index) corner: u32) -> @builtin(position) vec4<f32> {
            let x = f32(corner & 1u);
            let y = f32(corner >> 1u);
            return vec4(x * 4.0 - 1.0, y * 4.0 - 1.0, 0.0, 1.0);
        }";

    fn compile(wgsl: &str) -> Vec<u32> {
        let module = naga::front::wgsl::parse_str(wgsl).unwrap();
        let info = naga::valid::Validator::new(
            naga::valid::ValidationFlags::all(),
            naga::valid::Capabilities::empty(),
        )
        .validate(&module)
        .unwrap();
        let options = spv::Options {
            // Neither names, nor y turned upside down.
            flags: spv::WriterFlags::empty(),
            ..spv::Options::default()
        };
        spv::write_vec(&module, &info, &options, None).unwrap()
    }

    #[test]
    fn the_vertex_shader_is_what_its_source_says() {
        let words = compile(SOURCE);
        // The third word of the header names the compiler and its version.
        let but_for_compiler = |words: &[u32]| {
            let mut words = words.to_vec();
            words.remove(2);
            words
        };
        assert_eq!(but_for_compiler(FULL_SCREEN), but_for_compiler(&words));
    }

    fn fragment(declarations: &str, value: &str) -> Vec<u32> {
        compile(&format!(
            "{declarations}
            @fragment fn color(@builtin(position) at: vec4<f32>) -> @location(0) vec4<f32> {{
                return {value};
            }}"
        ))
    }

    #[test]
    fn textures_are_counted_to_the_last() {
        let none = interface(&fragment("", "at")).unwrap();
        assert_eq!((none.entry.as_c_str(), none.textures), (c"color", 0));
        let two = fragment(
            "@group(0) @binding(2) var uv: texture_2d<f32>;
             @group(1) @binding(1) var mixed: sampler;",
            "textureSample(uv, mixed, at.xy) + vec4(vec2<f32>(textureDimensions(uv)), 0.0, 0.0)",
        );
        assert_eq!(interface(&two).unwrap().textures, 3);
    }

    #[test]
    fn what_is_not_offered_is_refused() {
        for (declarations, value) in [
            (
                "@group(0) @binding(8) var t: texture_2d<f32>;",
                "textureLoad(t, vec2(0), 0)",
            ),
            (
                "@group(2) @binding(0) var t: texture_2d<f32>;",
                "textureLoad(t, vec2(0), 0)",
            ),
            ("@group(0) @binding(0) var<uniform> u: vec4<f32>;", "u"),
            (
                "@group(0) @binding(0) var<storage, read> u: array<vec4<f32>>;",
                "u[0]",
            ),
        ] {
            let refused = interface(&fragment(declarations, value));
            assert!(refused.is_err(), "{declarations}: {refused:?}");
        }
        let refused = interface(&compile(SOURCE)).unwrap_err();
        assert!(refused.contains("no entry point"), "{refused}");
    }

    #[test]
    fn what_is_no_module_is_refused() {
        let whole = fragment("", "at");
        for length in 0..whole.len() {
            // An end between two instructions cannot be seen, after the entry point.
            if let Ok(interface) = interface(&whole[..length]) {
                assert_eq!(interface.textures, 0);
            }
        }
        let swapped: Vec<u32> = whole.iter().map(|word| word.swap_bytes()).collect();
        assert!(interface(&swapped).unwrap_err().contains("other order"));
        let mut endless = whole;
        endless[HEADER] = 17; // length 0
        assert!(interface(&endless).unwrap_err().contains("beyond its end"));
        assert!(interface(&[]).is_err());
    }
}
