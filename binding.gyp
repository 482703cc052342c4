{
  "targets": [
    {
      "target_name": "vfio_user",
      "sources": [
        "native/addon.cc",
        "native/affinity.cc",
        "native/arguments.cc",
        "native/bus-error-guard.cc",
        "native/descriptor-table.cc",
        "native/descriptor.cc",
        "native/eventfd.cc",
        "native/glibc.cc",
        "native/memory.cc",
        "native/nvme/queue-loop.cc",
        "native/readiness.cc",
        "native/socket-message.cc",
        "native/socket.cc",
        "native/vfio/async-call.cc",
        "native/vfio/container.cc",
        "native/vfio/device.cc",
        "native/vfio/dirty-log.cc",
        "native/vfio/dma-memory.cc",
        "native/vfio/iommufd.cc",
        "native/vfio/migration.cc",
      ],
      "include_dirs": ["<!(node -p \"require('node-addon-api').include_dir\")"],
      "defines": ["NAPI_VERSION=8", "NAPI_DISABLE_CPP_EXCEPTIONS"],
      "cflags_cc!": ["-std=gnu++17", "-std=gnu++20", "-fno-rtti"],
      "cflags_cc": ["-std=c++17", "-fvisibility=hidden", "-Wall", "-Wextra"],
      # The SIGBUS handler outlives the worker that loaded the addon, so the library must never be unloaded.
      "ldflags": ["-Wl,-z,nodelete"],
      "conditions": [
        # Warnings stop our own builds, not those of users with a compiler that we never saw.
        ["\"<!(echo $CI)\"!=\"\"", {"cflags_cc": ["-Werror"]}],
      ],
    },
  ],
}
