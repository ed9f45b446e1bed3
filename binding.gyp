# The N-API addon with the CPU backend linked in. Source lists are globbed when gyp configures; *_sm90.cu belongs to
# CMakeLists.txt. No -march=native: the binary must run on other machines, kernels are chosen at run time.
{
  'targets': [
    {
      'target_name': 'flash_gsa',
      'sources': ['<!@(node native/build/sources.mjs)'],
      'include_dirs': ["<!(node -p \"require('node-addon-api').include_dir\")"],
      'defines': [
        'NAPI_VERSION=8',
        'NAPI_CPP_EXCEPTIONS',
        'NODE_ADDON_API_DISABLE_DEPRECATED',
        # A worker thread that is being terminated takes no exception any more: without this the process would abort.
        'NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS',
      ],
      'cflags!': ['-fno-exceptions', '-fno-omit-frame-pointer'],
      'cflags_cc!': ['-fno-exceptions', '-fno-rtti', '-std=gnu++17', '-std=gnu++20'],
      'cflags_cc': [
        '-std=c++17', '-O3', '-fexceptions', '-frtti', '-fvisibility=hidden', '-fvisibility-inlines-hidden',
        '-fno-math-errno', '-fno-trapping-math', '-Wall', '-Wextra', '-Wno-missing-field-initializers',
      ],
      'ldflags': ['-pthread'],
      'libraries': ['-ldl'],
      'xcode_settings': {
        'GCC_ENABLE_CPP_EXCEPTIONS': 'YES',
        'GCC_ENABLE_CPP_RTTI': 'YES',
        'GCC_OPTIMIZATION_LEVEL': '3',
        'GCC_SYMBOLS_PRIVATE_EXTERN': 'YES',
        'CLANG_CXX_LANGUAGE_STANDARD': 'c++17',
        'MACOSX_DEPLOYMENT_TARGET': '11.0',
        'OTHER_CPLUSPLUSFLAGS': ['-fno-math-errno', '-fno-trapping-math', '-Wall', '-Wextra'],
      },
    },
  ],
}
