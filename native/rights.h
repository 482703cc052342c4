// SPDX-License-Identifier: MIT
#ifndef VFIO_USER_RIGHTS_H_
#define VFIO_USER_RIGHTS_H_

#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

/**
 * Lets descriptors go with a message (unix(7), SCM_RIGHTS). `control` is aligned as a cmsghdr, has room for
 * them by CMSG_SPACE, and lives until the message is sent.
 */
inline void AttachRights(msghdr* message, void* control, const int32_t* fds, size_t count) {
  const size_t size = count * sizeof(int32_t);
  std::memset(control, 0, CMSG_SPACE(size));
  message->msg_control = control;
  message->msg_controllen = CMSG_SPACE(size);
  cmsghdr* const rights = CMSG_FIRSTHDR(message);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(size);
  std::memcpy(CMSG_DATA(rights), fds, size);
}

#endif  // VFIO_USER_RIGHTS_H_
