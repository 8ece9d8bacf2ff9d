"""The scripts that write to Redis, in Lua.

Each writes a record and its owner's index together. Each may be sent again: it recognises a call
that it has carried out by an id.
"""

from __future__ import annotations

from typing import Final

from .base import DEADLINE

PREFIX: Final = "devkit_sso:"
"""The prefix of all our keys, because applications may share a Redis."""

SLACK: Final = 60.0
"""Seconds for which Redis keeps a record after it has expired, because the clocks of its readers
may differ by that much."""

_INDEX: Final = f"""
local function index(owner, expires, now, ttl)
    if owner and owner ~= '' then
        local name = '{PREFIX}owner:' .. owner
        redis.call('ZADD', name, expires, KEYS[1])
        -- Only a few, because everybody waits for a script. It is more than each call adds.
        local gone = redis.call('ZRANGEBYSCORE', name, '-inf', now - {SLACK:.0f}, 'LIMIT', 0, 10)
        if #gone > 0 then redis.call('ZREM', name, unpack(gone)) end
        if redis.call('PTTL', name) < ttl then redis.call('PEXPIRE', name, ttl) end
    end
end
local function alive(now)
    local expires = redis.call('HGET', KEYS[1], 'expires')
    return expires and tonumber(expires) > now
end
"""

ADD: Final = f"""{_INDEX}
local data, now, expires, owner, call = unpack(ARGV)
if alive(tonumber(now)) then
    return redis.call('HGET', KEYS[1], 'call') == call and 1 or 0
end
local ttl = math.floor((expires - now + {SLACK:.0f}) * 1000)
-- Begin with a write that Redis refuses when it is out of memory.
redis.call('HSET', KEYS[1], 'data', data, 'used', now, 'expires', expires, 'owner', owner,
    'call', call)
redis.call('PEXPIRE', KEYS[1], ttl)
index(owner, expires, tonumber(now), ttl)
return 1
"""

UPDATE: Final = f"""{_INDEX}
local data, now, condition, expected = unpack(ARGV)
if not alive(tonumber(now)) then return 0 end
if condition == '1' and redis.call('HGET', KEYS[1], 'data') ~= expected then return 0 end
redis.call('HSET', KEYS[1], 'data', data)
return 1
"""

TOUCH: Final = f"""{_INDEX}
local used, now, expires = unpack(ARGV)
local before, owner = unpack(redis.call('HMGET', KEYS[1], 'used', 'owner'))
if not alive(tonumber(now)) or tonumber(before) >= tonumber(used) then return 0 end
local ttl = math.floor((expires - now + {SLACK:.0f}) * 1000)
redis.call('HSET', KEYS[1], 'used', used, 'expires', expires)
redis.call('PEXPIRE', KEYS[1], ttl)
index(owner, expires, tonumber(now), ttl)
return 1
"""

REMOVE: Final = f"""{_INDEX}
local now, condition, wanted, call = unpack(ARGV)
local answer = '{PREFIX}removed:' .. call
local before = redis.call('GET', answer)
if before then return before end
local data, owner = unpack(redis.call('HMGET', KEYS[1], 'data', 'owner'))
local found = alive(tonumber(now))
if not data or (condition == '1' and data ~= wanted) then return false end
redis.call('DEL', KEYS[1])
if owner and owner ~= '' then redis.call('ZREM', '{PREFIX}owner:' .. owner, KEYS[1]) end
if not found then return false end
redis.call('SET', answer, data, 'PX', {DEADLINE * 2000:.0f})
return data
"""
