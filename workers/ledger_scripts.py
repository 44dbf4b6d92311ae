"""The ledger's atomic steps, in Lua. ``ARGV[1]`` is always the key prefix; one Redis, no cluster."""

from __future__ import annotations

# ARGV: prefix, now, lease seconds, nonce, declined jobs... -> {job, shard} or nothing
CLAIM = """
local prefix, now, lease, nonce = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local declined = {}
for i = 5, #ARGV do declined[ARGV[i]] = true end
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

# ARGV: prefix, job, shard, nonce, new expiry, images made -> 1 or 0
RENEW = """
local prefix, job, shard = ARGV[1], ARGV[2], ARGV[3]
if redis.call('HGET', prefix .. 'nonce:' .. job, shard) ~= ARGV[4] then return 0 end
if not redis.call('ZSCORE', prefix .. 'jobs', job) then return 0 end
redis.call('ZADD', prefix .. 'lease:' .. job, ARGV[5], shard)
redis.call('HSET', prefix .. 'made:' .. job, shard, ARGV[6])
return 1
"""

# ARGV: prefix, job, shard, nonce -> 1 or 0
RELEASE = """
local prefix, job, shard = ARGV[1], ARGV[2], ARGV[3]
if redis.call('HGET', prefix .. 'nonce:' .. job, shard) ~= ARGV[4] then return 0 end
redis.call('ZREM', prefix .. 'lease:' .. job, shard)
redis.call('HDEL', prefix .. 'nonce:' .. job, shard)
redis.call('HDEL', prefix .. 'made:' .. job, shard)
redis.call('LPUSH', prefix .. 'todo:' .. job, shard)
return 1
"""

# ARGV: prefix, job, shard, nonce, now, share of the delay, base seconds, cap seconds -> faults of this shard so far
POSTPONE = """
local prefix, job, shard = ARGV[1], ARGV[2], ARGV[3]
if redis.call('HGET', prefix .. 'nonce:' .. job, shard) ~= ARGV[4] then return 0 end
local faults = redis.call('HINCRBY', prefix .. 'tries:' .. job, shard, 1)
local delay = math.min(tonumber(ARGV[8]), tonumber(ARGV[7]) * 2 ^ faults) * tonumber(ARGV[6])
redis.call('ZADD', prefix .. 'lease:' .. job, tonumber(ARGV[5]) + delay, shard)
redis.call('HDEL', prefix .. 'nonce:' .. job, shard)
redis.call('HDEL', prefix .. 'made:' .. job, shard)
return faults
"""

# ARGV: prefix, job, shard, nonce -> 1 when every shard of an active job is done. Done is done, whoever held the lease.
COMPLETE = """
local prefix, job, shard = ARGV[1], ARGV[2], ARGV[3]
if not redis.call('ZSCORE', prefix .. 'jobs', job) then return 0 end
redis.call('SETBIT', prefix .. 'done:' .. job, shard, 1)
if redis.call('HGET', prefix .. 'nonce:' .. job, shard) == ARGV[4] then
  redis.call('ZREM', prefix .. 'lease:' .. job, shard)
  redis.call('HDEL', prefix .. 'nonce:' .. job, shard)
  redis.call('HDEL', prefix .. 'made:' .. job, shard)
end
local total = tonumber(redis.call('HGET', prefix .. 'job:' .. job, 'shards'))
return redis.call('BITCOUNT', prefix .. 'done:' .. job) >= total and 1 or 0
"""

# ARGV: prefix, job, now -> number of shards that are free again
EXPIRE = """
local prefix, job = ARGV[1], ARGV[2]
local late = redis.call('ZRANGEBYSCORE', prefix .. 'lease:' .. job, '-inf', ARGV[3])
for _, shard in ipairs(late) do
  redis.call('ZREM', prefix .. 'lease:' .. job, shard)
  redis.call('HDEL', prefix .. 'nonce:' .. job, shard)
  redis.call('HDEL', prefix .. 'made:' .. job, shard)
  if redis.call('GETBIT', prefix .. 'done:' .. job, shard) == 0 then
    redis.call('RPUSH', prefix .. 'todo:' .. job, shard)
  end
end
return #late
"""
