"""The ledger's atomic steps, in Lua. ``ARGV[1]`` is always the key prefix; one Redis, no cluster.

Time is Redis's own, in seconds, so that workers whose clocks differ agree on when a lease ends.
"""

from __future__ import annotations

_NOW = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
"""

_FREE = """
local function forget(prefix, job, shard)
  redis.call('ZREM', prefix .. 'lease:' .. job, shard)
  redis.call('HDEL', prefix .. 'nonce:' .. job, shard)
  redis.call('HDEL', prefix .. 'made:' .. job, shard)
end
"""

# ARGV: prefix, lease seconds, nonce, declined jobs... -> {job, shard} or nothing
CLAIM = (
    _NOW
    + """
local prefix, lease, nonce = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local declined = {}
for i = 4, #ARGV do declined[ARGV[i]] = true end
for _, job in ipairs(redis.call('ZRANGE', prefix .. 'jobs', 0, -1)) do
  if not declined[job] then
    local shard = redis.call('LPOP', prefix .. 'todo:' .. job)
    while shard and redis.call('GETBIT', prefix .. 'done:' .. job, shard) == 1 do
      shard = redis.call('LPOP', prefix .. 'todo:' .. job)
    end
    if shard then
      redis.call('ZADD', prefix .. 'lease:' .. job, now + lease, shard)
      redis.call('HSET', prefix .. 'nonce:' .. job, shard, nonce)
      redis.call('HSET', prefix .. 'made:' .. job, shard, 0)
      redis.call('ZADD', prefix .. 'jobs', now, job)
      return {job, shard}
    end
  end
end
return nil
"""
)

# ARGV: prefix, job, shard, nonce, lease seconds, images made -> 1 or 0
RENEW = (
    _NOW
    + """
local prefix, job, shard = ARGV[1], ARGV[2], ARGV[3]
if redis.call('HGET', prefix .. 'nonce:' .. job, shard) ~= ARGV[4] then return 0 end
if not redis.call('ZSCORE', prefix .. 'jobs', job) then return 0 end
redis.call('ZADD', prefix .. 'lease:' .. job, now + tonumber(ARGV[5]), shard)
redis.call('HSET', prefix .. 'made:' .. job, shard, ARGV[6])
return 1
"""
)

# ARGV: prefix, job, shard, nonce -> 1 or 0
RELEASE = (
    _FREE
    + """
local prefix, job, shard = ARGV[1], ARGV[2], ARGV[3]
if redis.call('HGET', prefix .. 'nonce:' .. job, shard) ~= ARGV[4] then return 0 end
forget(prefix, job, shard)
redis.call('LPUSH', prefix .. 'todo:' .. job, shard)
return 1
"""
)

# ARGV: prefix, job, shard, nonce, share of the delay, base seconds, cap seconds -> faults of this shard so far.
# The shard stays in the leases, without a nonce, until its back-off is over.
POSTPONE = (
    _NOW
    + _FREE
    + """
local prefix, job, shard = ARGV[1], ARGV[2], ARGV[3]
if redis.call('HGET', prefix .. 'nonce:' .. job, shard) ~= ARGV[4] then return 0 end
local faults = redis.call('HINCRBY', prefix .. 'tries:' .. job, shard, 1)
local delay = math.min(tonumber(ARGV[7]), tonumber(ARGV[6]) * 2 ^ faults) * tonumber(ARGV[5])
forget(prefix, job, shard)
redis.call('ZADD', prefix .. 'lease:' .. job, now + delay, shard)
return faults
"""
)

# ARGV: prefix, job, shard, nonce -> 1 when every shard of an active job is done. Done is done, whoever held the lease.
COMPLETE = (
    _FREE
    + """
local prefix, job, shard = ARGV[1], ARGV[2], ARGV[3]
if not redis.call('ZSCORE', prefix .. 'jobs', job) then return 0 end
redis.call('SETBIT', prefix .. 'done:' .. job, shard, 1)
if redis.call('HGET', prefix .. 'nonce:' .. job, shard) == ARGV[4] then forget(prefix, job, shard) end
local total = tonumber(redis.call('HGET', prefix .. 'job:' .. job, 'shards'))
return redis.call('BITCOUNT', prefix .. 'done:' .. job) >= total and 1 or 0
"""
)

# ARGV: prefix, job -> {shards that are free again, most faults of any of them}.
# A lease that ran out with its nonce was never handed back: its worker was lost, which counts as a fault.
EXPIRE = (
    _NOW
    + _FREE
    + """
local prefix, job = ARGV[1], ARGV[2]
local late, most = redis.call('ZRANGEBYSCORE', prefix .. 'lease:' .. job, '-inf', now), 0
for _, shard in ipairs(late) do
  local lost = redis.call('HEXISTS', prefix .. 'nonce:' .. job, shard) == 1
  forget(prefix, job, shard)
  if redis.call('GETBIT', prefix .. 'done:' .. job, shard) == 0 then
    if lost then most = math.max(most, redis.call('HINCRBY', prefix .. 'tries:' .. job, shard, 1)) end
    redis.call('RPUSH', prefix .. 'todo:' .. job, shard)
  end
end
return {#late, most}
"""
)
