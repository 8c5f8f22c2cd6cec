include(${CMAKE_CURRENT_LIST_DIR}/plugin_version.cmake)

# The library's files with what each is compiled with, for whoever compiles them: prism_sources(OUT) sets OUT to their full
# paths and their options in the caller's directory.
function(prism_sources out)
    set(sources
        api/attention.c api/check.c api/context.c api/cuda.c api/plan.c api/tensor.c
        core/bands.c core/flex.c core/lines.c core/options.c core/plan.c core/rope.c core/rule.c core/topp.c
        methods/dense.c methods/flashprefill.c methods/flexprefill.c methods/meanpool.c methods/methods.c
        methods/minference.c methods/moments.c methods/prism.c methods/xattention.c
        cpu/attend.c cpu/attend_few.c cpu/backend.c cpu/calibrate.c cpu/attend_corrected.c cpu/entries.c cpu/select_lines.c
        cpu/tiers/tier_c.c cpu/pick_lines.c cpu/select_moments.c cpu/operand.c cpu/pool.c cpu/pool_moments.c cpu/probe.c cpu/select.c cpu/select_strided.c
        cpu/tiers/tiers.c cpu/select_tokens.c)
    if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
        set(avx2 -mavx2 -mfma -mf16c)
        set(avx512 ${avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mprefer-vector-width=512)
        set(avx512bf16 ${avx512} -mavx512bf16)
        set(amx ${avx512bf16} -mamx-tile -mamx-bf16)
        set(tiers avx2 avx512 avx512bf16 amx)
    elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
        set(neon "")
        set(neonbf16 -march=armv8.2-a+bf16)
        set(tiers neon neonbf16)
    endif()
    set(paths "")
    foreach(file IN LISTS sources)
        list(APPEND paths ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/${file})
    endforeach()
    foreach(tier IN LISTS tiers)
        set(path ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/cpu/tiers/tier_${tier}.c)
        set_source_files_properties(${path} PROPERTIES COMPILE_OPTIONS "${${tier}}")
        list(APPEND paths ${path})
    endforeach()
    prism_plugin_version(version ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/.. ${PRISM_CUDA_SHARED_HEADERS})
    set_source_files_properties(${CMAKE_CURRENT_FUNCTION_LIST_DIR}/api/cuda.c PROPERTIES
        COMPILE_DEFINITIONS PRISM_CUDA_PLUGIN_VERSION=${version})
    set(${out} ${paths} PARENT_SCOPE)
endfunction()
