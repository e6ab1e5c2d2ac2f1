# KVA_FAISS_GPU says whether the FAISS that was found (faiss_DIR chooses it) has its GPU index. A program is linked with
# it: headers alone say nothing of the library.
set(KVA_FAISS_GPU OFF)
if(KVA_HAVE_CUDA)
  try_compile(KVA_FAISS_GPU
    SOURCE_FROM_CONTENT faiss_gpu.cc [[
      #include <faiss/gpu/GpuIndexFlat.h>
      #include <faiss/gpu/StandardGpuResources.h>
      int main() {
        faiss::gpu::StandardGpuResources resources;
        return static_cast<int>(faiss::gpu::GpuIndexFlatL2(&resources, 64).ntotal);
      }
    ]]
    LINK_LIBRARIES faiss OpenMP::OpenMP_CXX CUDA::toolkit
    CXX_STANDARD 20
    NO_CACHE)
endif()
message(STATUS "GPU index of FAISS ${faiss_VERSION}: ${KVA_FAISS_GPU}")
