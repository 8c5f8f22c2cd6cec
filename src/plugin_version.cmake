# The versions of the two plug-ins. A library and its plug-in share structs, and both are compiled with one version: the
# first 32 bits of a SHA-256 over the headers with these structs. A plug-in refuses a library of another version.
set(PRISM_CUDA_SHARED_HEADERS src/stages.h src/core/*.h include/prism_attn/*.h)
set(LM_CUDA_SHARED_HEADERS lm/*.h include/prism_attn/*.h)

# Sets OUT to the version that the headers below ROOT give, a C constant. CMake runs again when one of them changes.
function(prism_plugin_version out root)
    get_filename_component(root ${root} REALPATH)
    list(TRANSFORM ARGN PREPEND ${root}/)
    file(GLOB headers ${ARGN})
    if(NOT headers)
        message(FATAL_ERROR "no headers: ${ARGN}")
    endif()
    set(digests "")
    foreach(header IN LISTS headers)
        file(SHA256 ${header} digest)
        string(APPEND digests ${digest})
    endforeach()
    string(SHA256 digest "${digests}")
    string(SUBSTRING ${digest} 0 8 digest)
    set(${out} 0x${digest}u PARENT_SCOPE)
    if(NOT CMAKE_SCRIPT_MODE_FILE) # each file once: Ninja refuses what two directories name
        get_property(named GLOBAL PROPERTY PRISM_VERSIONED_HEADERS)
        list(REMOVE_ITEM headers ${named})
        set_property(GLOBAL APPEND PROPERTY PRISM_VERSIONED_HEADERS ${headers})
        set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${headers})
    endif()
endfunction()
