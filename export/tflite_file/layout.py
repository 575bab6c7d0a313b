"""The tables of a `.tflite` file, as far as they contain vectors, strings or other tables. Pure Python.

`-` is a slot that is not read. The options of an operator are listed only if they contain more than numbers; a test
compares the list with LiteRT's generated schema.

Source: schema version 3, https://github.com/google-ai-edge/LiteRT, `schema.fbs`.
"""

from __future__ import annotations

from types import SimpleNamespace

from keras_effnet.export.tflite_file.flatbuffer import Content, Reader, schema
from keras_effnet.export.tflite_file.schema import enum_names

TABLES = schema(
    """
    Model: version:u32 operator_codes:[OperatorCode] subgraphs:[SubGraph] description:string buffers:[Buffer]
        metadata_buffer:[i32] metadata:[Metadata] signature_defs:[SignatureDef]
        external_buffer_groups:[ExternalBufferGroup] external_buffers:[ExternalBuffer]
    OperatorCode: deprecated_builtin_code:i8 custom_code:string - builtin_code:i32
    SubGraph: tensors:[Tensor] inputs:[i32] outputs:[i32] operators:[Operator] name:string -
    Tensor: shape:[i32] type:i8 buffer:u32 name:string quantization:QuantizationParameters is_variable:bool
        sparsity:SparsityParameters shape_signature:[i32] - variant_tensors:[VariantSubType] external_buffer:u32
    Operator: opcode_index:u32 inputs:[i32] outputs:[i32] builtin_options_type:u8 builtin_options:union
        custom_options:[u8] - mutating_variable_inputs:[bool] intermediates:[i32] large_custom_options_offset:u64
        large_custom_options_size:u64 builtin_options_2_type:u8 builtin_options_2:union -
    Buffer: data:[u8] offset:u64 size:u64
    Metadata: name:string buffer:u32
    SignatureDef: inputs:[TensorMap] outputs:[TensorMap] signature_key:string - subgraph_index:u32
    TensorMap: name:string tensor_index:u32
    ExternalBufferGroup: name:string
    ExternalBuffer: id:u32 group:u32 - - packing:string
    VariantSubType: shape:[i32] - -

    QuantizationParameters: min:[f32] max:[f32] scale:[f32] zero_point:[i64] details_type:u8 details:union
        quantized_dimension:i32
    CustomQuantization: custom:[u8]
    BlockwiseQuantization: - - - block_shape:[i32]
    MultiAxisQuantization: - - - quantized_dimensions:[i32]

    SparsityParameters: traversal_order:[i32] block_map:[i32] dim_metadata:[DimensionMetadata]
    DimensionMetadata: - - array_segments_type:u8 array_segments:union array_indices_type:u8 array_indices:union
    Int32Vector: values:[i32]
    Uint16Vector: values:[u16]
    Uint8Vector: values:[u8]

    BucketizeOptions: boundaries:[f32]
    ConcatEmbeddingsOptions: - num_columns_per_channel:[i32] embedding_dim_per_channel:[i32]
    FullyConnectedOptions: - - - - - quant_spec:[u8]
    ReshapeOptions: new_shape:[i32]
    SqueezeOptions: squeeze_dims:[i32]
    VarHandleOptions: container:string shared_name:string

    StableHLOCompositeOptions: name:string - composite_attributes:[u8] - -
    StablehloBroadcastInDimOptions: broadcast_dimensions:[i64]
    StablehloCaseOptions: branch_subgraph_indices:[i32]
    StablehloConvolutionOptions: window_strides:[i64] padding:[i64] lhs_dilation:[i64] rhs_dilation:[i64]
        window_reversal:[bool] - - input_spatial_dimensions:[i64] - - kernel_spatial_dimensions:[i64] - -
        output_spatial_dimensions:[i64] - - precision_config:[u32]
    StablehloCustomCallOptions: call_target_name:string - backend_config:string - called_computations:[i32]
        custom_attributes:[u8]
    StablehloDotGeneralOptions: lhs_batching_dimensions:[i64] rhs_batching_dimensions:[i64]
        lhs_contracting_dimensions:[i64] rhs_contracting_dimensions:[i64] precision_config:[u32]
    StablehloDynamicSliceOptions: slice_sizes:[i64]
    StablehloGatherOptions: offset_dims:[i64] collapsed_slice_dims:[i64] start_index_map:[i64] - slice_sizes:[i64] -
    StablehloPadOptions: edge_padding_low:[i64] edge_padding_high:[i64] interior_padding:[i64]
    StablehloReduceOptions: dimensions:[i64] -
    StablehloReduceWindowOptions: window_dimensions:[i64] window_strides:[i64] base_dilations:[i64]
        window_dilations:[i64] padding:[i64] -
    StablehloScatterOptions: - update_window_dims:[i64] inserted_window_dims:[i64]
        scatter_dims_to_operand_dims:[i64] - - -
    StablehloSliceOptions: start_indices:[i64] limit_indices:[i64] strides:[i64]
    StablehloTransposeOptions: permutation:[i64]
    """
)

_UNIONS = {
    ("Operator", "builtin_options"): "BuiltinOptions",
    ("Operator", "builtin_options_2"): "BuiltinOptions2",
    ("QuantizationParameters", "details"): "QuantizationDetails",
    ("DimensionMetadata", "array_segments"): "SparseIndexVector",
    ("DimensionMetadata", "array_indices"): "SparseIndexVector",
}


def read_tables(content: Content) -> SimpleNamespace:
    """Read the tables of a file into namespaces, with every offset checked; constants are not copied.

    Raises:
        MalformedError: The file violates the format.
    """
    return Reader(
        content, TABLES, lambda table, field, kind: enum_names(_UNIONS[table, field]).get(kind, "unknown")
    ).root("Model")
