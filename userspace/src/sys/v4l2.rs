//! `linux/videodev2.h`: video nodes, their formats, controls and queues.
//!
//! Time stamps have 64 bits everywhere: where `time_t` has 32, the kernel tells
//! the two layouts of `struct v4l2_buffer` apart by the ioctl's number, which
//! its size is part of.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use bytemuck::{AnyBitPattern, NoUninit, Pod, Zeroable, bytes_of, cast_slice, cast_slice_mut};
use rustix::fs::OFlags;
use rustix::io::Result;
use rustix::ioctl::{self, Getter, Opcode, Setter, Updater, opcode};

/// `VIDEO_MAX_PLANES`.
pub(crate) const MAX_PLANES: usize = 8;

/// `V4L2_BUF_TYPE_*`, of pictures.
pub(crate) const VIDEO_CAPTURE: u32 = 1;
pub(crate) const VIDEO_OUTPUT: u32 = 2;
pub(crate) const VIDEO_CAPTURE_MPLANE: u32 = 9;
pub(crate) const VIDEO_OUTPUT_MPLANE: u32 = 10;

/// `V4L2_CAP_DEVICE_CAPS`: `device_caps` is filled in.
pub(crate) const CAP_DEVICE_CAPS: u32 = 0x8000_0000;

/// `V4L2_FIELD_NONE`.
pub(crate) const FIELD_NONE: u32 = 1;

/// `V4L2_FMT_FLAG_COMPRESSED` and `V4L2_FMT_FLAG_EMULATED`.
pub(crate) const FMT_COMPRESSED: u32 = 1;
pub(crate) const FMT_EMULATED: u32 = 2;

/// `V4L2_FRMSIZE_TYPE_DISCRETE`.
pub(crate) const SIZE_DISCRETE: u32 = 1;

/// `V4L2_CAP_TIMEPERFRAME`.
pub(crate) const CAP_TIME_PER_FRAME: u32 = 0x1000;

/// `V4L2_BUF_CAP_SUPPORTS_*`: MMAP, which everyone who knows these flags has,
/// and DMABUF.
pub(crate) const BUF_CAP_MMAP: u32 = 1;
pub(crate) const BUF_CAP_DMABUF: u32 = 4;

/// `V4L2_BUF_FLAG_*`.
pub(crate) const BUF_ERROR: u32 = 0x40;
pub(crate) const BUF_CLOCK_MASK: u32 = 0xe000;
pub(crate) const BUF_CLOCK_MONOTONIC: u32 = 0x2000;
pub(crate) const BUF_CLOCK_COPY: u32 = 0x4000;
pub(crate) const BUF_STAMP_MASK: u32 = 0x7_0000;
pub(crate) const BUF_STAMP_START: u32 = 0x1_0000;
pub(crate) const BUF_LAST: u32 = 0x10_0000;

/// `V4L2_CTRL_FLAG_NEXT_CTRL`, and what a control's flags tell.
pub(crate) const CTRL_NEXT: u32 = 0x8000_0000;
pub(crate) const CTRL_DISABLED: u32 = 1;

/// `V4L2_CTRL_TYPE_*`, of numbers.
pub(crate) const CTRL_MENU: u32 = 3;
pub(crate) const CTRL_INTEGER64: u32 = 5;
pub(crate) const CTRL_BITMASK: u32 = 8;
pub(crate) const CTRL_INTEGER_MENU: u32 = 9;

/// `struct v4l2_capability`.
#[repr(C)]
pub(crate) struct Capability {
    pub(crate) driver: [u8; 16],
    pub(crate) card: [u8; 32],
    pub(crate) bus_info: [u8; 32],
    version: u32,
    pub(crate) capabilities: u32,
    pub(crate) device_caps: u32,
    reserved: [u32; 3],
}

/// `struct v4l2_fmtdesc`.
#[repr(C)]
#[derive(Clone, Copy, Zeroable)]
pub(crate) struct FormatDescription {
    pub(crate) index: u32,
    pub(crate) kind: u32,
    pub(crate) flags: u32,
    pub(crate) description: [u8; 32],
    pub(crate) pixelformat: u32,
    mbus_code: u32,
    reserved: [u32; 3],
}

/// `struct v4l2_frmsizeenum`.
#[repr(C)]
#[derive(Clone, Copy, Zeroable)]
pub(crate) struct FrameSize {
    pub(crate) index: u32,
    pub(crate) pixel_format: u32,
    pub(crate) kind: u32,
    /// Width and height; or the least, the largest and the step of a width, and
    /// of a height.
    pub(crate) size: [u32; 6],
    reserved: [u32; 2],
}

/// `struct v4l2_pix_format`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct PixFormat {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) pixelformat: u32,
    pub(crate) field: u32,
    pub(crate) bytesperline: u32,
    pub(crate) sizeimage: u32,
    pub(crate) colorspace: u32,
    private: u32,
    flags: u32,
    pub(crate) ycbcr_enc: u32,
    pub(crate) quantization: u32,
    xfer_func: u32,
}

/// `struct v4l2_plane_pix_format`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct PlaneFormat {
    pub(crate) sizeimage: u32,
    pub(crate) bytesperline: u32,
    reserved: [u16; 6],
}

/// `struct v4l2_pix_format_mplane`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct PixFormatMultiplanar {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) pixelformat: u32,
    pub(crate) field: u32,
    pub(crate) colorspace: u32,
    pub(crate) planes: [PlaneFormat; MAX_PLANES],
    pub(crate) num_planes: u8,
    flags: u8,
    pub(crate) ycbcr_enc: u8,
    pub(crate) quantization: u8,
    xfer_func: u8,
    reserved: [u8; 7],
}

const WORDS: usize = 200 / size_of::<usize>();

/// `struct v4l2_format`, of pictures.
#[repr(C)]
#[derive(Clone, Copy, Zeroable)]
pub(crate) struct Format {
    kind: u32,
    /// A union, aligned as the pointers that other kinds have.
    raw: [usize; WORDS],
}

impl Format {
    /// To be asked for.
    pub(crate) fn new(kind: u32) -> Format {
        Format {
            kind,
            raw: [0; WORDS],
        }
    }

    /// What it is, of one kind of picture or the other.
    pub(crate) fn get<T: AnyBitPattern>(&self) -> T {
        let bytes: &[u8] = cast_slice(&self.raw);
        bytemuck::pod_read_unaligned(&bytes[..size_of::<T>()])
    }

    pub(crate) fn set<T: NoUninit>(&mut self, format: &T) {
        let bytes: &mut [u8] = cast_slice_mut(&mut self.raw);
        bytes[..size_of::<T>()].copy_from_slice(bytes_of(format));
    }
}

/// `struct v4l2_streamparm`. Capture and output have their numbers in the same
/// places.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct StreamParameters {
    pub(crate) kind: u32,
    pub(crate) capability: u32,
    mode: u32,
    /// Seconds a frame.
    pub(crate) numerator: u32,
    pub(crate) denominator: u32,
    raw: [u32; 46],
}

impl StreamParameters {
    pub(crate) fn new(kind: u32) -> StreamParameters {
        StreamParameters {
            kind,
            capability: 0,
            mode: 0,
            numerator: 0,
            denominator: 0,
            raw: [0; 46],
        }
    }
}

/// `struct v4l2_query_ext_ctrl`.
#[repr(C)]
#[derive(Clone, Copy, Zeroable)]
pub(crate) struct QueryControl {
    pub(crate) id: u32,
    pub(crate) kind: u32,
    pub(crate) name: [u8; 32],
    pub(crate) minimum: i64,
    pub(crate) maximum: i64,
    pub(crate) step: u64,
    pub(crate) default: i64,
    pub(crate) flags: u32,
    elem_size: u32,
    pub(crate) elems: u32,
    nr_of_dims: u32,
    dims: [u32; 4],
    reserved: [u32; 32],
}

/// `struct v4l2_querymenu`, which is packed: its words are aligned all the same.
#[repr(C)]
#[derive(Clone, Copy, Zeroable)]
pub(crate) struct QueryMenu {
    pub(crate) id: u32,
    pub(crate) index: u32,
    /// Or, in a menu of integers, the first 8 bytes are one.
    pub(crate) name: [u8; 32],
    reserved: u32,
}

/// `struct v4l2_ext_control`, which is packed: its value is aligned as its
/// other members are.
#[repr(C)]
struct Control {
    id: u32,
    size: u32,
    reserved: u32,
    /// 4 or 8 bytes of it, in the order of the CPU.
    value: [u8; 8],
}

/// `struct v4l2_ext_controls`.
#[repr(C)]
pub(crate) struct Controls {
    which: u32,
    count: u32,
    error_idx: u32,
    request_fd: RawFd,
    reserved: u32,
    controls: *mut Control,
}

/// `enum v4l2_memory`: whose memory the buffers of a queue are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// The driver's, to be mapped or exported.
    Mmap = 1,
    /// Others', who exported it.
    DmaBuf = 4,
}

/// `struct v4l2_requestbuffers`.
#[repr(C)]
pub(crate) struct RequestBuffers {
    count: u32,
    kind: u32,
    memory: u32,
    capabilities: u32,
    flags: u8,
    reserved: [u8; 3],
}

/// `struct v4l2_create_buffers`.
#[repr(C)]
#[derive(Clone, Copy, Zeroable)]
pub(crate) struct CreateBuffers {
    index: u32,
    count: u32,
    memory: u32,
    format: Format,
    capabilities: u32,
    flags: u32,
    reserved: [u32; 6],
}

/// `struct v4l2_plane`.
#[repr(C)]
#[derive(Clone, Copy, Zeroable)]
pub(crate) struct Plane {
    pub(crate) bytesused: u32,
    pub(crate) length: u32,
    m: Place,
    pub(crate) data_offset: u32,
    reserved: [u32; 11],
}

/// Where a plane is; which one holds the queue's memory tells.
#[repr(C)]
#[derive(Clone, Copy)]
union Place {
    fd: RawFd,
    planes: *mut Plane,
    whole: usize,
}

// SAFETY: all of them are numbers or a pointer, which may be null.
unsafe impl Zeroable for Place {}

impl Plane {
    /// That of a dma-buf, so long.
    pub(crate) fn of(dma_buf: BorrowedFd<'_>, length: u32) -> Plane {
        let mut plane = Plane {
            length,
            ..Plane::zeroed()
        };
        plane.m.fd = dma_buf.as_raw_fd();
        plane
    }
}

/// `struct timeval`, with 64 bits.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) microseconds: i64,
}

/// `struct v4l2_buffer`.
#[repr(C)]
#[derive(Clone, Copy, Zeroable)]
pub(crate) struct Buffer {
    pub(crate) index: u32,
    kind: u32,
    bytesused: u32,
    pub(crate) flags: u32,
    pub(crate) field: u32,
    pub(crate) timestamp: Time,
    timecode: [u32; 4],
    pub(crate) sequence: u32,
    memory: u32,
    m: Place,
    length: u32,
    reserved2: u32,
    request_fd: RawFd,
}

/// `struct v4l2_exportbuffer`.
#[repr(C)]
pub(crate) struct ExportBuffer {
    kind: u32,
    index: u32,
    plane: u32,
    flags: u32,
    fd: RawFd,
    reserved: [u32; 11],
}

/// `V4L2_IN_CAP_DV_TIMINGS`.
pub(crate) const IN_CAP_DV_TIMINGS: u32 = 2;

/// `V4L2_EVENT_SOURCE_CHANGE`, and `V4L2_EVENT_SRC_CH_RESOLUTION` of it.
pub(crate) const EVENT_SOURCE_CHANGE: u32 = 5;
pub(crate) const SOURCE_RESOLUTION: u32 = 1;

/// `struct v4l2_input`.
#[repr(C)]
#[derive(Clone, Copy, Zeroable)]
pub(crate) struct Input {
    pub(crate) index: u32,
    pub(crate) name: [u8; 32],
    kind: u32,
    audioset: u32,
    tuner: u32,
    std: u64,
    pub(crate) status: u32,
    pub(crate) capabilities: u32,
    reserved: [u32; 3],
}

/// `struct v4l2_dv_timings` with its `v4l2_bt_timings`, which are packed: the
/// pixel clock lies on no multiple of 8 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub(crate) struct DvTimings {
    kind: u32,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) interlaced: u32,
    polarities: u32,
    pixel_clock: [u32; 2],
    /// Blanking, standards, flags, aspect, codes, and what is reserved.
    rest: [u32; 26],
}

impl DvTimings {
    pub(crate) fn pixel_clock(&self) -> u64 {
        bytemuck::cast(self.pixel_clock)
    }
}

/// `struct v4l2_event`.
#[repr(C)]
#[derive(Clone, Copy, Zeroable)]
pub(crate) struct Event {
    pub(crate) kind: u32,
    data: [u64; 8],
    pending: u32,
    sequence: u32,
    timestamp: [i64; 2],
    id: u32,
    reserved: [u32; 8],
}

impl Event {
    /// `u.src_change.changes`.
    pub(crate) fn changes(&self) -> u32 {
        cast_slice::<u64, u32>(&self.data)[0]
    }
}

/// `struct v4l2_event_subscription`.
#[repr(C)]
#[derive(Clone, Copy, Zeroable)]
struct Subscription {
    kind: u32,
    id: u32,
    flags: u32,
    reserved: [u32; 5],
}

macro_rules! read_write {
    ($(#[$doc:meta])* $code:ident = $number:literal, $name:ident($type:ty)) => {
        const $code: Opcode = opcode::read_write::<$type>(b'V', $number);

        $(#[$doc])*
        pub(crate) fn $name(node: BorrowedFd<'_>, value: &mut $type) -> Result<()> {
            // SAFETY: the opcode reads and writes one such struct, which has no
            // pointers for these kinds of it.
            unsafe { ioctl::ioctl(node, Updater::<$code, $type>::new(value)) }
        }
    };
}

read_write!(
    /// `VIDIOC_ENUM_FMT`: `EINVAL` past the last.
    ENUM_FMT = 2, enumerate_formats(FormatDescription));
read_write!(
    /// `VIDIOC_ENUM_FRAMESIZES`: `EINVAL` past the last.
    ENUM_FRAMESIZES = 74, enumerate_sizes(FrameSize));
read_write!(
    /// `VIDIOC_G_FMT`.
    G_FMT = 4, get_format(Format));
read_write!(
    /// `VIDIOC_S_FMT`: what the driver made of it comes back.
    S_FMT = 5, set_format(Format));
read_write!(
    /// `VIDIOC_TRY_FMT`: the same, and nothing is set.
    TRY_FMT = 64, try_format(Format));
read_write!(
    /// `VIDIOC_G_PARM`.
    G_PARM = 21, get_parameters(StreamParameters));
read_write!(
    /// `VIDIOC_S_PARM`: what the driver made of it comes back.
    S_PARM = 22, set_parameters(StreamParameters));
read_write!(
    /// `VIDIOC_QUERY_EXT_CTRL`: `EINVAL` past the last.
    QUERY_EXT_CTRL = 103, query_control(QueryControl));
read_write!(
    /// `VIDIOC_QUERYMENU`: `EINVAL` for an item that is left out.
    QUERYMENU = 37, query_menu(QueryMenu));
read_write!(
    /// `VIDIOC_S_INPUT`.
    S_INPUT = 39, set_input(u32));
read_write!(
    /// `VIDIOC_S_OUTPUT`.
    S_OUTPUT = 47, set_output(u32));

read_write!(
    /// `VIDIOC_ENUMINPUT`: `EINVAL` past the last.
    ENUMINPUT = 26, enumerate_inputs(Input));
read_write!(
    /// `VIDIOC_S_DV_TIMINGS`: what the driver made of it comes back.
    S_DV_TIMINGS = 87, set_timings(DvTimings));
read_write!(
    /// `VIDIOC_G_DV_TIMINGS`.
    G_DV_TIMINGS = 88, get_timings(DvTimings));

const G_INPUT: Opcode = opcode::read::<u32>(b'V', 38);
const DQEVENT: Opcode = opcode::read::<Event>(b'V', 89);
const SUBSCRIBE_EVENT: Opcode = opcode::write::<Subscription>(b'V', 90);
const QUERY_DV_TIMINGS: Opcode = opcode::read::<DvTimings>(b'V', 99);

/// `VIDIOC_G_INPUT`.
pub(crate) fn get_input(node: BorrowedFd<'_>, input: &mut u32) -> Result<()> {
    // SAFETY: the opcode writes one number.
    *input = unsafe { ioctl::ioctl(node, Getter::<G_INPUT, u32>::new()) }?;
    Ok(())
}

/// `VIDIOC_QUERY_DV_TIMINGS`.
pub(crate) fn query_timings(node: BorrowedFd<'_>) -> Result<DvTimings> {
    // SAFETY: the opcode writes one `DvTimings`.
    unsafe { ioctl::ioctl(node, Getter::<QUERY_DV_TIMINGS, DvTimings>::new()) }
}

/// `VIDIOC_SUBSCRIBE_EVENT`: changes of the source of this input.
pub(crate) fn subscribe_source(node: BorrowedFd<'_>, input: u32) -> Result<()> {
    let subscription = Subscription {
        kind: EVENT_SOURCE_CHANGE,
        id: input,
        ..Subscription::zeroed()
    };
    // SAFETY: the opcode reads one `Subscription`.
    unsafe {
        ioctl::ioctl(
            node,
            Setter::<SUBSCRIBE_EVENT, Subscription>::new(subscription),
        )
    }
}

/// `VIDIOC_DQEVENT`: `ENOENT` where there is none and the node is open so as not
/// to wait.
pub(crate) fn dequeue_event(node: BorrowedFd<'_>) -> Result<Event> {
    // SAFETY: the opcode writes one `Event`.
    unsafe { ioctl::ioctl(node, Getter::<DQEVENT, Event>::new()) }
}

const QUERYCAP: Opcode = opcode::read::<Capability>(b'V', 0);
const REQBUFS: Opcode = opcode::read_write::<RequestBuffers>(b'V', 8);
const QBUF: Opcode = opcode::read_write::<Buffer>(b'V', 15);
const EXPBUF: Opcode = opcode::read_write::<ExportBuffer>(b'V', 16);
const DQBUF: Opcode = opcode::read_write::<Buffer>(b'V', 17);
const STREAMON: Opcode = opcode::write::<u32>(b'V', 18);
const STREAMOFF: Opcode = opcode::write::<u32>(b'V', 19);
const G_EXT_CTRLS: Opcode = opcode::read_write::<Controls>(b'V', 71);
const S_EXT_CTRLS: Opcode = opcode::read_write::<Controls>(b'V', 72);
const CREATE_BUFS: Opcode = opcode::read_write::<CreateBuffers>(b'V', 92);
const PREPARE_BUF: Opcode = opcode::read_write::<Buffer>(b'V', 93);

/// `VIDIOC_QUERYCAP`.
pub(crate) fn capability(node: BorrowedFd<'_>) -> Result<Capability> {
    // SAFETY: the opcode writes one `Capability`.
    unsafe { ioctl::ioctl(node, Getter::<QUERYCAP, Capability>::new()) }
}

/// `VIDIOC_REQBUFS`: so many slots for buffers, none to let them go. How many
/// there are then, and `V4L2_BUF_CAP_*`.
pub(crate) fn request_buffers(
    node: BorrowedFd<'_>,
    kind: u32,
    memory: Memory,
    count: u32,
) -> Result<(u32, u32)> {
    let mut request = RequestBuffers {
        count,
        kind,
        memory: memory as u32,
        capabilities: 0,
        flags: 0,
        reserved: [0; 3],
    };
    // SAFETY: the opcode reads and writes one `RequestBuffers`.
    unsafe { ioctl::ioctl(node, Updater::<REQBUFS, RequestBuffers>::new(&mut request))? };
    Ok((request.count, request.capabilities))
}

/// `VIDIOC_CREATE_BUFS` of no buffers, which changes nothing:
/// `V4L2_BUF_CAP_*`.
pub(crate) fn buffer_capabilities(node: BorrowedFd<'_>, format: Format) -> Result<u32> {
    let mut request = CreateBuffers {
        memory: Memory::Mmap as u32,
        format,
        ..CreateBuffers::zeroed()
    };
    // SAFETY: the opcode reads and writes one `CreateBuffers`, whose format is
    // of a kind without pointers.
    unsafe {
        ioctl::ioctl(
            node,
            Updater::<CREATE_BUFS, CreateBuffers>::new(&mut request),
        )?
    };
    Ok(request.capabilities)
}

/// `VIDIOC_STREAMON`.
pub(crate) fn stream_on(node: BorrowedFd<'_>, kind: u32) -> Result<()> {
    // SAFETY: the opcode reads one number.
    unsafe { ioctl::ioctl(node, Setter::<STREAMON, u32>::new(kind)) }
}

/// `VIDIOC_STREAMOFF`.
pub(crate) fn stream_off(node: BorrowedFd<'_>, kind: u32) -> Result<()> {
    // SAFETY: the opcode reads one number.
    unsafe { ioctl::ioctl(node, Setter::<STREAMOFF, u32>::new(kind)) }
}

/// `VIDIOC_EXPBUF`: a plane of one of the driver's own buffers as a dma-buf.
pub(crate) fn export(node: BorrowedFd<'_>, kind: u32, index: u32, plane: u32) -> Result<OwnedFd> {
    let mut request = ExportBuffer {
        kind,
        index,
        plane,
        flags: (OFlags::RDWR | OFlags::CLOEXEC).bits(),
        fd: -1,
        reserved: [0; 11],
    };
    // SAFETY: the opcode reads and writes one `ExportBuffer`.
    unsafe { ioctl::ioctl(node, Updater::<EXPBUF, ExportBuffer>::new(&mut request))? };
    // SAFETY: the call succeeded, so this is a new fd that no one else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(request.fd) })
}

/// `VIDIOC_G_EXT_CTRLS` of one control, a number, in as many bytes as its type
/// has.
pub(crate) fn get_control(node: BorrowedFd<'_>, id: u32) -> Result<[u8; 8]> {
    let mut control = Control::new(id, [0; 8]);
    control_call::<G_EXT_CTRLS>(node, &mut control)?;
    Ok(control.value)
}

/// `VIDIOC_S_EXT_CTRLS` of one control, a number.
pub(crate) fn set_control(node: BorrowedFd<'_>, id: u32, value: [u8; 8]) -> Result<()> {
    control_call::<S_EXT_CTRLS>(node, &mut Control::new(id, value))
}

impl Control {
    fn new(id: u32, value: [u8; 8]) -> Control {
        Control {
            id,
            size: 0,
            reserved: 0,
            value,
        }
    }
}

fn control_call<const CODE: Opcode>(node: BorrowedFd<'_>, control: &mut Control) -> Result<()> {
    let mut controls = Controls {
        which: 0, // V4L2_CTRL_WHICH_CUR_VAL
        count: 1,
        error_idx: 0,
        request_fd: 0,
        reserved: 0,
        controls: control,
    };
    // SAFETY: the opcode is one of the two above. It reads and writes one
    // `Controls` and the `Control` that it points to. A control with a payload
    // has a pointer for its value: the kernel looks at it only where `size` has
    // room for that payload, which 0 has not.
    unsafe { ioctl::ioctl(node, Updater::<CODE, Controls>::new(&mut controls)) }
}

impl Buffer {
    /// The slot `index` of a queue of this kind and memory.
    pub(crate) fn new(kind: u32, memory: Memory, index: u32) -> Buffer {
        Buffer {
            index,
            kind,
            memory: memory as u32,
            ..Buffer::zeroed()
        }
    }

    fn is_multiplanar(&self) -> bool {
        matches!(self.kind, VIDEO_CAPTURE_MPLANE | VIDEO_OUTPUT_MPLANE)
    }
}

/// `VIDIOC_QBUF`: gives the slot, with these planes, to the driver. A queue of
/// one plane takes the first.
pub(crate) fn queue(node: BorrowedFd<'_>, buffer: &mut Buffer, planes: &mut [Plane]) -> Result<()> {
    buffer_call::<QBUF>(node, buffer, planes)
}

/// `VIDIOC_PREPARE_BUF`: as [`queue`], but that the driver does not use it yet.
pub(crate) fn prepare(
    node: BorrowedFd<'_>,
    buffer: &mut Buffer,
    planes: &mut [Plane],
) -> Result<()> {
    buffer_call::<PREPARE_BUF>(node, buffer, planes)
}

/// `VIDIOC_DQBUF`: takes the next slot back; what is in its planes. `EAGAIN`
/// where there is none yet and the node is open for that.
pub(crate) fn dequeue(
    node: BorrowedFd<'_>,
    buffer: &mut Buffer,
    planes: &mut [Plane],
) -> Result<()> {
    buffer_call::<DQBUF>(node, buffer, planes)
}

/// One of the calls above, with planes as the queue's kind has them.
fn buffer_call<const CODE: Opcode>(
    node: BorrowedFd<'_>,
    buffer: &mut Buffer,
    planes: &mut [Plane],
) -> Result<()> {
    if buffer.is_multiplanar() {
        buffer.m.planes = planes.as_mut_ptr();
        buffer.length = u32::try_from(planes.len()).unwrap_or(u32::MAX);
    } else if let Some(plane) = planes.first() {
        buffer.m = plane.m;
        buffer.length = plane.length;
        buffer.bytesused = plane.bytesused;
    }
    // SAFETY: the opcode is one of the three above, which read and write one
    // `Buffer`, and of a multi-planar one at most `length` of the planes that it
    // points to.
    unsafe { ioctl::ioctl(node, Updater::<CODE, Buffer>::new(buffer))? };
    match planes.first_mut() {
        Some(plane) if !buffer.is_multiplanar() => {
            plane.bytesused = buffer.bytesused;
            plane.length = buffer.length;
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn layout_is_that_of_the_header() {
        assert_eq!(offset_of!(Capability, device_caps), 88);
        assert_eq!(QUERYCAP, 0x8068_5600);
        assert_eq!(offset_of!(FormatDescription, pixelformat), 44);
        assert_eq!(ENUM_FMT, 0xc040_5602);
        assert_eq!(offset_of!(FrameSize, size), 12);
        assert_eq!(ENUM_FRAMESIZES, 0xc02c_564a);
        assert_eq!(size_of::<PixFormat>(), 48);
        assert_eq!(offset_of!(PixFormat, quantization), 40);
        assert_eq!(size_of::<PixFormatMultiplanar>(), 192);
        assert_eq!(offset_of!(PixFormatMultiplanar, planes), 20);
        assert_eq!(offset_of!(PixFormatMultiplanar, num_planes), 180);
        assert_eq!(offset_of!(PixFormatMultiplanar, quantization), 183);
        assert_eq!(offset_of!(StreamParameters, numerator), 12);
        assert_eq!(G_PARM, 0xc0cc_5615);
        assert_eq!(S_PARM, 0xc0cc_5616);
        assert_eq!(offset_of!(QueryControl, minimum), 40);
        assert_eq!(offset_of!(QueryControl, flags), 72);
        assert_eq!(QUERY_EXT_CTRL, 0xc0e8_5667);
        assert_eq!(offset_of!(QueryMenu, name), 8);
        assert_eq!(QUERYMENU, 0xc02c_5625);
        assert_eq!(size_of::<Control>(), 20);
        assert_eq!(offset_of!(Control, value), 12);
        assert_eq!(REQBUFS, 0xc014_5608);
        assert_eq!(offset_of!(ExportBuffer, fd), 16);
        assert_eq!(EXPBUF, 0xc040_5610);
        assert_eq!(STREAMON, 0x4004_5612);
        assert_eq!(STREAMOFF, 0x4004_5613);
        assert_eq!(S_INPUT, 0xc004_5627);
        assert_eq!(G_INPUT, 0x8004_5626);
        assert_eq!(offset_of!(DvTimings, pixel_clock), 20);
        assert_eq!(G_DV_TIMINGS, 0xc084_5658);
        assert_eq!(S_DV_TIMINGS, 0xc084_5657);
        assert_eq!(QUERY_DV_TIMINGS, 0x8084_5663);
        assert_eq!(SUBSCRIBE_EVENT, 0x4020_565a);
        assert_eq!(S_OUTPUT, 0xc004_562f);
    }

    /// What has pointers in it.
    #[cfg(target_pointer_width = "64")]
    #[test]
    fn layout_is_that_of_the_header_with_64_bits() {
        assert_eq!(offset_of!(Input, status), 56);
        assert_eq!(ENUMINPUT, 0xc050_561a);
        assert_eq!(offset_of!(Event, data), 8);
        assert_eq!(offset_of!(Event, timestamp), 80);
        assert_eq!(DQEVENT, 0x8088_5659);
        assert_eq!(offset_of!(Format, raw), 8);
        assert_eq!(G_FMT, 0xc0d0_5604);
        assert_eq!(S_FMT, 0xc0d0_5605);
        assert_eq!(TRY_FMT, 0xc0d0_5640);
        assert_eq!(offset_of!(Controls, controls), 24);
        assert_eq!(G_EXT_CTRLS, 0xc020_5647);
        assert_eq!(S_EXT_CTRLS, 0xc020_5648);
        assert_eq!(offset_of!(CreateBuffers, format), 16);
        assert_eq!(offset_of!(CreateBuffers, capabilities), 224);
        assert_eq!(CREATE_BUFS, 0xc100_565c);
        assert_eq!(size_of::<Plane>(), 64);
        assert_eq!(offset_of!(Plane, m), 8);
        assert_eq!(offset_of!(Plane, data_offset), 16);
        assert_eq!(offset_of!(Buffer, timestamp), 24);
        assert_eq!(offset_of!(Buffer, timecode), 40);
        assert_eq!(offset_of!(Buffer, sequence), 56);
        assert_eq!(offset_of!(Buffer, m), 64);
        assert_eq!(offset_of!(Buffer, length), 72);
        assert_eq!(offset_of!(Buffer, request_fd), 80);
        assert_eq!(QBUF, 0xc058_560f);
        assert_eq!(DQBUF, 0xc058_5611);
        assert_eq!(PREPARE_BUF, 0xc058_565d);
    }

    /// What an array of words is read as is what was written.
    #[test]
    fn a_format_keeps_what_is_set() {
        let mut format = Format::new(VIDEO_CAPTURE_MPLANE);
        let mut wanted = PixFormatMultiplanar::zeroed();
        (wanted.width, wanted.num_planes) = (640, 2);
        wanted.planes[1].bytesperline = 4096;
        format.set(&wanted);
        let got: PixFormatMultiplanar = format.get();
        assert_eq!((got.width, got.num_planes), (640, 2));
        assert_eq!(got.planes[1].bytesperline, 4096);
        assert_eq!(format.get::<PixFormat>().width, 640);
    }
}
