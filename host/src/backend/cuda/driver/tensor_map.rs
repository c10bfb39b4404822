//! Tensor maps: the driver packs the description of a tensor into the bytes that the device reads.

use std::ffi::c_uint;

use nabla_kernels_gpu::{config::Dtype, panels::Swizzle};

use super::{
    super::super::device::{DeviceError, MAP_BYTES, MappedTensor},
    Context, TensorElement, TensorFill, TensorInterleave, TensorMap, TensorPromotion, TensorSwizzle,
};

impl Context {
    /// Packs a description; it holds as long as the tensor lies where it does.
    pub(in super::super) fn tensor_map(&self, tensor: &MappedTensor) -> Result<[u8; MAP_BYTES], DeviceError> {
        let element = match tensor.dtype {
            Dtype::Bf16 => TensorElement::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            Dtype::F16 => TensorElement::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
        };
        let swizzle = match tensor.map.swizzle {
            Swizzle::Bytes64 => TensorSwizzle::CU_TENSOR_MAP_SWIZZLE_64B,
            Swizzle::Bytes128 => TensorSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
        };
        let mut map = TensorMap { opaque: [0; MAP_BYTES / 8] };
        let (elements, strides) = (tensor.elements, tensor.strides());
        let (box_elements, element_strides) = (tensor.map.box_elements, [1 as c_uint; 3]);
        let address = std::ptr::without_provenance_mut(tensor.address as usize);
        // SAFETY: the arrays have as many entries as the rank says, one fewer for the strides, and live until the call
        // returns; the address is only noted, not read.
        self.call("cuTensorMapEncodeTiled", |f| unsafe {
            (f.cuTensorMapEncodeTiled)(
                &mut map,
                element,
                elements.len() as c_uint,
                address,
                elements.as_ptr(),
                strides.as_ptr(),
                box_elements.as_ptr(),
                element_strides.as_ptr(),
                TensorInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                swizzle,
                TensorPromotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                TensorFill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        })?;
        Ok(bytemuck::cast(map.opaque))
    }
}
